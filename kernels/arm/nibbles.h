// Looks up values of four bits.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace edge_vlm {

// to[i] = bytes[value i], of 32 values, two in a byte, the first in its low half
inline void LookUpNibbles(const int8_t* bytes, const uint8_t* pairs, int8_t* to) {
  int8x16_t table = vld1q_s8(bytes);
  uint8x16_t both = vld1q_u8(pairs);
  int8x16x2_t found;
  found.val[0] = vqtbl1q_s8(table, vandq_u8(both, vdupq_n_u8(15)));
  found.val[1] = vqtbl1q_s8(table, vshrq_n_u8(both, 4));
  vst2q_s8(to, found);
}

}  // namespace edge_vlm
