#include "prologue.h"

#include "scalar_math.h"
#include "tile.h"

namespace edge_vlm {
namespace {

constexpr float kNormEpsilon = 1e-6f;  // as in the graph's LayerNormalization
constexpr float kSmallestStep = 1e-12f;

}  // namespace

const float* Prepare(const float* x, size_t in, const Prologue& before, float* row) {
  if (!before.norm_weight && !before.factors) return x;
  if (before.norm_weight) {
    float sum = 0, squares = 0;
    for (size_t i = 0; i < in; ++i) sum += x[i];
    float mean = sum / static_cast<float>(in);
    for (size_t i = 0; i < in; ++i) squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / std::sqrt(squares / static_cast<float>(in) + kNormEpsilon);
    for (size_t i = 0; i < in; ++i) row[i] = (x[i] - mean) * scale * before.norm_weight[i] + before.norm_bias[i];
    x = row;
  }
  if (before.factors)
    for (size_t i = 0; i < in; ++i) row[i] = x[i] * before.factors[i];
  return row;
}

Rounded Quantise(const float* x, size_t in, size_t depth, uint8_t* q) {
  int32_t lowest = 0, highest = 0;  // both ends reach zero
  for (size_t i = 0; i < in; ++i) {
    int32_t order = InOrder(x[i]);
    lowest = order < lowest ? order : lowest;
    highest = order > highest ? order : highest;
  }
  float low = FromOrder(lowest), step = (FromOrder(highest) - low) / 255.0f;
  step = step > kSmallestStep ? step : kSmallestStep;
  float inverse = 1.0f / step, zero = std::rint(-low * inverse);
  for (size_t i = 0; i < in; ++i) {
    float value = std::rint(x[i] * inverse) + zero;
    value = value < 0 ? 0 : value;
    value = value > 255 ? 255 : value;
    q[i] = static_cast<uint8_t>(static_cast<int32_t>(value) - kByteShift);
  }
  for (size_t i = in; i < depth; ++i) q[i] = 0;
  return {step, zero - kByteShift};
}

}  // namespace edge_vlm
