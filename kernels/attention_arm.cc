// From scores to the softmax's weights on Arm processors.
#if defined(__aarch64__)
#include "attention_arm.h"

#include "weights_by_row.h"

namespace edge_vlm {

int32_t Highest(const int32_t* scores, size_t count) {
  int32x4_t highest = vld1q_s32(scores);
  for (size_t i = 0; i < count; i += 16)
    for (size_t j = 0; j < 16; j += 4) highest = vmaxq_s32(highest, vld1q_s32(scores + i + j));
  return vmaxvq_s32(highest);
}

// Left to the compiler to make vector code of.
float WeighRow(const int32_t* scores, size_t count, float step, int32_t highest, Weight* weights) {
  float offset = -static_cast<float>(highest) * step;
  size_t padded = RoundUp(count, kPanel);
  for (size_t i = 0; i < padded; ++i) {
    float weight = kLargestWeight * Exp2(static_cast<float>(scores[i]) * step + offset);
    weights[i] = static_cast<Weight>(static_cast<int32_t>(std::rint(weight)));
  }
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += weights[i];
  return static_cast<float>(sum);
}

}  // namespace edge_vlm
#endif
