// Products of signed bytes on every 64-bit Arm processor.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edge_vlm {

inline bool HasDots() { return true; }

constexpr int kRowsOfBytes = 4;  // products on their way to the sums take registers too
struct Four {
  int8x16_t low, high;  // the first two bytes and the last two, eight times each
};

inline Four LoadFour(const int8_t* row) {
  int16_t two[2];
  std::memcpy(two, row, 4);
  return {vreinterpretq_s8_s16(vdupq_n_s16(two[0])), vreinterpretq_s8_s16(vdupq_n_s16(two[1]))};
}

// Four columns, the upper two rows of each before the lower two. Two products fit 16 bits: no weight is -128.
inline int32x4_t Dot(int32x4_t sum, Four row, int8x16_t column) {
  int16x8_t two = vmull_s8(vget_low_s8(row.low), vget_low_s8(column));
  return vpadalq_s16(sum, vmlal_high_s8(two, row.high, column));
}

// Sixteen columns of four rows.
inline void Interleave(const int8x16x4_t& rows, int8_t* to) {
  int8x16_t upper[2] = {vzip1q_s8(rows.val[0], rows.val[1]), vzip2q_s8(rows.val[0], rows.val[1])};
  int8x16_t lower[2] = {vzip1q_s8(rows.val[2], rows.val[3]), vzip2q_s8(rows.val[2], rows.val[3])};
  for (int i = 0; i < 2; ++i, to += 32) {
    vst1q_s8(to, vcombine_s8(vget_low_s8(upper[i]), vget_low_s8(lower[i])));
    vst1q_s8(to + 16, vcombine_s8(vget_high_s8(upper[i]), vget_high_s8(lower[i])));
  }
}

// Four rows of one of sixteen columns, likewise.
inline void PlaceFour(const int8_t* four, size_t column, int8_t* to) {
  to += column / 4 * 16 + column % 4 * 2;
  std::memcpy(to, four, 2);
  std::memcpy(to + 8, four + 2, 2);
}

// Four rows of sixteen columns of a panel of heads.h that is `columns` wide, as Dot takes them.
inline void LoadColumns(const int8_t* panel, size_t columns, int8x16_t column[4]) {
  for (int c = 0; c < 4; ++c) column[c] = vcombine_s8(vld1_s8(panel + 8 * c), vld1_s8(panel + 2 * columns + 8 * c));
}

}  // namespace edge_vlm
