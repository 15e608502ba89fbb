#include "blocks4.h"

#include "nibbles.h"

#include <algorithm>
#include <cmath>

// These switches round each quotient once, so that every processor makes the same bytes.
#pragma clang fp reassociate(off) reciprocal(off) contract(off)

namespace edge_vlm {
namespace {

constexpr int kHighest = 15;  // value of four bits

inline int ZeroOf(const uint8_t* zeros, size_t block) { return zeros[block / 2] >> (block % 2 * 4) & kHighest; }

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
    int8_t bytes[kHighest + 1];  // the byte of each value
    for (int q = 0; q <= kHighest; ++q)
      bytes[q] = static_cast<int8_t>(static_cast<int32_t>(std::rint(static_cast<float>(q - zero) * ratio)));
    LookUpNibbles(bytes, values + place * (kBlock4 / 2), to[c]);
  }
}

}  // namespace edge_vlm
