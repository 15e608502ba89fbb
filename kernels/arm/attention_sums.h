// What tiles of attention do with their sums on Arm processors: sixteen columns of a few rows.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace edge_vlm {

template <int kCount>
void Store(const int32x4_t (&sum)[kCount][4], int32_t* sums, size_t pitch) {
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) vst1q_s32(sums + r * pitch + 4 * c, sum[r][c]);
}

// out[r] += scale[r] * sum[r]
template <int kCount>
void AddValues(const int32x4_t (&sum)[kCount][4], const float* scale, float* out, size_t pitch) {
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) {
      float* to = out + r * pitch + 4 * c;
      vst1q_f32(to, vfmaq_n_f32(vld1q_f32(to), vcvtq_f32_s32(sum[r][c]), scale[r]));
    }
}

}  // namespace edge_vlm
