// Looks up values of four bits.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace edge_vlm {

// to[i] = bytes[value i], of 32 values, two in a byte, the first in its low half
inline void LookUpNibbles(const int8_t* bytes, const uint8_t* pairs, int8_t* to) {
  auto* out = reinterpret_cast<__m128i*>(to);
  __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), low4 = _mm_set1_epi8(15);
  __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs));
  __m128i even = _mm_shuffle_epi8(table, _mm_and_si128(both, low4));
  __m128i odd = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(both, 4), low4));
  _mm_storeu_si128(out, _mm_unpacklo_epi8(even, odd));
  _mm_storeu_si128(out + 1, _mm_unpackhi_epi8(even, odd));
}

}  // namespace edge_vlm
