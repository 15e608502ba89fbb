// Products of signed bytes with Armv8.2's dot products.
#pragma once
#include "target.h"

#include <arm_neon.h>
#include <sys/auxv.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edge_vlm {

constexpr unsigned long kHwcapDot = 1UL << 20;

inline bool HasDots() { return getauxval(AT_HWCAP) & kHwcapDot; }

constexpr int kRowsOfBytes = kRows;
using Four = int8x16_t;  // four bytes of a row, four times

inline Four LoadFour(const int8_t* row) {
  int32_t four;
  std::memcpy(&four, row, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// Four columns, each four deep.
inline int32x4_t Dot(int32x4_t sum, Four row, int8x16_t column) { return vdotq_s32(sum, row, column); }

// Sixteen columns of four rows.
inline void Interleave(const int8x16x4_t& rows, int8_t* to) { vst4q_s8(to, rows); }

// Four rows of one of sixteen columns, likewise.
inline void PlaceFour(const int8_t* four, size_t column, int8_t* to) { std::memcpy(to + 4 * column, four, 4); }

// Four rows of sixteen columns of a panel of heads.h that is `columns` wide, as Dot takes them.
inline void LoadColumns(const int8_t* panel, size_t, int8x16_t column[4]) {
  for (int c = 0; c < 4; ++c) column[c] = vld1q_s8(panel + 16 * c);
}

}  // namespace edge_vlm
