// One tile of float32 products on x86: kRows rows and so many columns that the sums fill the vector registers.
#pragma once
#include "tile.h"
#include "vector.h"

namespace edge_vlm {

constexpr int kLanes = sizeof(Vector) / sizeof(float);

// sums[r][0 .. columns) (+)= sum over k of a[r][k] * panel[k][0 .. columns), columns = kVectors * kLanes
// Four numbers of row r, from a multiple of four on, lie at a + row_pitch * r + group_pitch * k / 4; depth a multiple of
// 4.
template <int kVectors>
[[gnu::always_inline]] inline void MultiplyTile(const float* a, size_t row_pitch, size_t group_pitch, const float* panel,
                                                size_t panel_pitch, size_t depth, float* sums, size_t pitch,
                                                bool accumulate) {
  Vector sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kVectors; ++c) sum[r][c] = accumulate ? Load(sums + pitch * r + kLanes * c) : Repeat(0);
  for (size_t k = 0; k < depth; k += kFloatGroup, a += group_pitch)
    for (size_t i = 0; i < kFloatGroup; ++i, panel += panel_pitch) {
      Vector column[kVectors];
      for (int c = 0; c < kVectors; ++c) column[c] = Load(panel + kLanes * c);
      for (int c = 0; c < kVectors; ++c) __builtin_prefetch(panel + 8 * panel_pitch + kLanes * c);
      for (int r = 0; r < kRows; ++r) {
        Vector row = Repeat(a[row_pitch * r + i]);
        for (int c = 0; c < kVectors; ++c) sum[r][c] = MultiplyAdd(row, column[c], sum[r][c]);
      }
    }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kVectors; ++c) Store(sums + pitch * r + kLanes * c, sum[r][c]);
}

}  // namespace edge_vlm
