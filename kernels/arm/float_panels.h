// Panels of float layers on Arm, [4 columns][depth][4] in float32, and a tile of their products.
#pragma once
#include "tile.h"

#include <arm_neon.h>

#include <algorithm>
#include <cstring>

namespace edge_vlm {
constexpr int kFloatWidth = 16;  // columns of a tile

inline float32x4_t LoadFour(const uint16_t* from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }
inline float32x4_t LoadFour(const float* from) { return vld1q_f32(from); }

template <class Number>
void PackFloats(const Number* weights, size_t pitch, size_t depth, size_t columns, float* panel) {
  size_t padded = RoundUp(depth, kFloatGroup);
  for (size_t c0 = 0; c0 < kPanel; c0 += 4)
    for (size_t k = 0; k < padded; k += 4) {
      size_t width = std::min<size_t>(4, padded - k), valid = std::min<size_t>(4, depth - k);
      const Number* from = weights + c0 * pitch + k;
      size_t step = pitch;
      Number edge[4][4];
      if (valid < 4 || c0 + 4 > columns) {
        std::memset(edge, 0, sizeof(edge));
        for (size_t c = c0; c < std::min(c0 + 4, columns); ++c)
          std::memcpy(edge[c - c0], weights + c * pitch + k, valid * sizeof(Number));
        from = edge[0], step = 4;
      }
      float32x4x4_t block;  // four of a column in a vector
      for (size_t c = 0; c < 4; ++c) block.val[c] = LoadFour(from + c * step);
      if (width == 4) {
        vst4q_f32(panel, block);
      } else {
        float turned[16];
        vst4q_f32(turned, block);
        std::memcpy(panel, turned, 4 * width * sizeof(float));
      }
      panel += 4 * width;
    }
}

// kRows rows times columns `first` to `first` + kFloatWidth of a panel; sums of the first of them.
inline void MultiplyFloats(const float* a, const float* panel, int first, size_t depth, float* sums, bool accumulate) {
  panel += static_cast<size_t>(first) * depth;
  float32x4_t sum[kRows][4];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < 4; ++c) sum[r][c] = accumulate ? vld1q_f32(sums + kPanel * r + 4 * c) : vdupq_n_f32(0);
  for (size_t k = 0; k < depth; k += kFloatGroup, a += kRows * kFloatGroup)
    for (size_t i = 0; i < kFloatGroup; ++i, panel += 4) {
      float32x4_t column[4];
      for (int c = 0; c < 4; ++c) column[c] = vld1q_f32(panel + 4 * c * depth);
      for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 4; ++c) sum[r][c] = vfmaq_n_f32(sum[r][c], column[c], a[kFloatGroup * r + i]);
    }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < 4; ++c) vst1q_f32(sums + kPanel * r + 4 * c, sum[r][c]);
}

}  // namespace edge_vlm
