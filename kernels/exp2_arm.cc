// The softmax's weights on Arm processors, as the compiler makes vector code of them.
#if defined(__aarch64__)
#include "tile.h"

namespace edge_vlm {

float Exp2Row(const float* x, size_t count, float high, Element* weights) {
  float sum = 0;
  for (size_t i = 0; i < count; ++i) {
    float weight = Exp((x[i] - high) * 0.6931472f);  // 2^x = exp(x ln 2)
    sum += weight;
    weights[i] = ToElement(weight);
  }
  return sum;
}

}  // namespace edge_vlm
#endif
