#include "blocks4.h"

#include <algorithm>
#include <cmath>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

// quotients are rounded once, so that every processor makes the same bytes
#pragma clang fp reassociate(off) reciprocal(off) contract(off)

namespace edge_vlm {
namespace {

constexpr int kHighest = 15;  // value of four bits

inline int ZeroOf(const uint8_t* zeros, size_t block) { return zeros[block / 2] >> (block % 2 * 4) & kHighest; }

// to[i] = bytes[value i of a block]
inline void LookUp(const int8_t* bytes, const uint8_t* pairs, int8_t* to) {
#if defined(__x86_64__)
  auto* out = reinterpret_cast<__m128i*>(to);
  __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), low4 = _mm_set1_epi8(kHighest);
  __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs));
  __m128i even = _mm_shuffle_epi8(table, _mm_and_si128(both, low4));
  __m128i odd = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(both, 4), low4));
  _mm_storeu_si128(out, _mm_unpacklo_epi8(even, odd));
  _mm_storeu_si128(out + 1, _mm_unpackhi_epi8(even, odd));
#else
  int8x16_t table = vld1q_s8(bytes);
  uint8x16_t both = vld1q_u8(pairs);
  int8x16x2_t found;
  found.val[0] = vqtbl1q_s8(table, vandq_u8(both, vdupq_n_u8(kHighest)));
  found.val[1] = vqtbl1q_s8(table, vshrq_n_u8(both, 4));
  vst2q_s8(to, found);
#endif
}

}  // namespace

float Blocks4::StepOf(size_t column) const {
  const float* own_steps = steps + column * num_blocks;
  const uint8_t* own_zeros = zeros + column * ((num_blocks + 1) / 2);
  float largest = 0;
  for (size_t b = 0; b < num_blocks; ++b) {
    int zero = ZeroOf(own_zeros, b);
    largest = std::max(largest, own_steps[b] * static_cast<float>(std::max(zero, kHighest - zero)));
  }
  return largest > 0 ? largest / 127 : 1;
}

void Blocks4::Unpack(size_t first, size_t count, size_t block, const float* column_steps,
                     int8_t (*to)[kBlock4]) const {
  for (size_t c = 0; c < count; ++c) {
    size_t place = (first + c) * num_blocks + block;
    int zero = ZeroOf(zeros + (first + c) * ((num_blocks + 1) / 2), block);
    float ratio = steps[place] / column_steps[c];
    int8_t bytes[kHighest + 1];  // of each value
    for (int q = 0; q <= kHighest; ++q)
      bytes[q] = static_cast<int8_t>(static_cast<int32_t>(std::rint(static_cast<float>(q - zero) * ratio)));
    LookUp(bytes, values + place * (kBlock4 / 2), to[c]);
  }
}

}  // namespace edge_vlm
