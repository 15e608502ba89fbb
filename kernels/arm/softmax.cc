// Turns scores into the softmax's shares on Arm processors.
#include "softmax_by_row.h"

#include <arm_neon.h>

namespace edge_vlm {
namespace {

int32_t Highest(const int32_t* scores, size_t count) {
  int32x4_t highest = vld1q_s32(scores);
  for (size_t i = 0; i < count; i += 16)
    for (size_t j = 0; j < 16; j += 4) highest = vmaxq_s32(highest, vld1q_s32(scores + i + j));
  return vmaxvq_s32(highest);
}

// The compiler makes vector code of this.
float SoftmaxRow(const int32_t* scores, size_t count, float step, int32_t highest, Share* shares) {
  float offset = -static_cast<float>(highest) * step;
  size_t padded = RoundUp(count, kPanel);
  for (size_t i = 0; i < padded; ++i) {
    float share = kLargestShare * Exp2(static_cast<float>(scores[i]) * step + offset);
    shares[i] = static_cast<Share>(static_cast<int32_t>(std::rint(share)));
  }
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += shares[i];
  return static_cast<float>(sum);
}

}  // namespace

void SoftmaxRows(const int32_t* scores, size_t pitch, int rows, size_t count, const float* steps, Share* shares,
                 int32_t* highest, float* sums) {
  SoftmaxByRow(Highest, SoftmaxRow, scores, pitch, rows, count, steps, shares, highest, sums);
}

}  // namespace edge_vlm
