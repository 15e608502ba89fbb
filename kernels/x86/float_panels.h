// Panels of float layers on x86, [depth][64] in float32, and a tile of their products.
#pragma once
#include "float_tile.h"

#include <algorithm>
#include <cstring>

namespace edge_vlm {

inline __m256 LoadEight(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline __m256 LoadEight(const float* from) { return _mm256_loadu_ps(from); }

// Eight rows become eight columns.
inline void Transpose(__m256 (&v)[8]) {
  __m256 two[8], four[8];
  for (int i = 0; i < 8; i += 2) {
    two[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    two[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      four[i + 2 * j] = _mm256_shuffle_ps(two[i + j], two[i + j + 2], 0x44);
      four[i + 2 * j + 1] = _mm256_shuffle_ps(two[i + j], two[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
  }
}

template <class Number>
void PackFloats(const Number* weights, size_t pitch, size_t depth, size_t columns, float* panel) {
  size_t padded = RoundUp(depth, kFloatGroup);
  for (size_t c0 = 0; c0 < kPanel; c0 += 8)
    for (size_t k0 = 0; k0 < padded; k0 += 8) {
      size_t width = std::min<size_t>(8, padded - k0), valid = std::min<size_t>(8, depth - k0);
      __m256 block[8];
      for (size_t c = 0; c < 8; ++c) {
        Number edge[8] = {};
        const Number* from = edge;
        if (c0 + c < columns) {
          from = weights + (c0 + c) * pitch + k0;
          if (valid < 8) std::memcpy(edge, from, valid * sizeof(Number)), from = edge;
        }
        block[c] = LoadEight(from);
      }
      Transpose(block);
      for (size_t k = 0; k < width; ++k) _mm256_storeu_ps(panel + (k0 + k) * kPanel + c0, block[k]);
    }
}

constexpr int kFloatWidth = kMostVectors * kLanes;  // columns of a tile

// kRows rows times columns `first` to `first` + kFloatWidth of a panel; sums of the first of them.
inline void MultiplyFloats(const float* a, const float* panel, int first, size_t depth, float* sums, bool accumulate) {
  MultiplyTile<kMostVectors>(a, kFloatGroup, kRows * kFloatGroup, panel + first, kPanel, depth, sums, kPanel, accumulate);
}

}  // namespace edge_vlm
