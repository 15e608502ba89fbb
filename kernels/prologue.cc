#include "prologue.h"

#include "scalar_math.h"
#include "tile.h"

namespace edge_vlm {
namespace {

constexpr float kSmallestStep = 1e-12f;

// A norm takes `mean` from each number of a row and multiplies the rest by `scale`.
struct Norm {
  float mean, scale;

  Norm(const float* x, size_t in, float epsilon) {
    float sum = 0, squares = 0;
    for (size_t i = 0; i < in; ++i) sum += x[i];
    mean = sum / static_cast<float>(in);
    for (size_t i = 0; i < in; ++i) squares += (x[i] - mean) * (x[i] - mean);
    scale = 1.0f / std::sqrt(squares / static_cast<float>(in) + epsilon);
  }
};

// The lowest and the highest number of a row and zero, in the order of floats (scalar_math.h).
struct Range {
  int32_t lowest = 0, highest = 0;

  void Add(float x) {
    int32_t order = InOrder(x);
    lowest = order < lowest ? order : lowest;
    highest = order > highest ? order : highest;
  }
};

// The range of value(i) over a whole row; also stores the values in `row` where kStores.
template <bool kStores, class Value>
Range RangeOf(size_t in, const Value& value, float* __restrict row) {
  Range range;
  for (size_t i = 0; i < in; ++i) {
    float x = value(i);
    range.Add(x);
    if (kStores) row[i] = x;
  }
  return range;
}

Rounded Round(const float* x, const Range& range, size_t in, size_t depth, uint8_t* q) {
  float low = FromOrder(range.lowest), step = (FromOrder(range.highest) - low) / 255.0f;
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

}  // namespace

const float* Prepare(const float* x, size_t in, const Prologue& before, float* row) {
  if (!before.norm_weight && !before.factors) return x;
  if (before.norm_weight) {
    Norm norm(x, in, before.epsilon);
    for (size_t i = 0; i < in; ++i)
      row[i] = (x[i] - norm.mean) * norm.scale * before.norm_weight[i] + before.norm_bias[i];
    x = row;
  }
  if (before.factors)
    for (size_t i = 0; i < in; ++i) row[i] = x[i] * before.factors[i];
  return row;
}

Rounded Quantise(const float* x, size_t in, size_t depth, const Prologue& before, float* row, uint8_t* q) {
  const float *weight = before.norm_weight, *bias = before.norm_bias, *factors = before.factors;
  if (weight && factors) {
    x = Prepare(x, in, before, row);
    return Round(x, RangeOf<false>(in, [&](size_t i) { return x[i]; }, nullptr), in, depth, q);
  }
  if (weight) {
    Norm norm(x, in, before.epsilon);
    auto value = [&](size_t i) { return (x[i] - norm.mean) * norm.scale * weight[i] + bias[i]; };
    return Round(row, RangeOf<true>(in, value, row), in, depth, q);
  }
  if (factors) return Round(row, RangeOf<true>(in, [&](size_t i) { return x[i] * factors[i]; }, row), in, depth, q);
  return Round(x, RangeOf<false>(in, [&](size_t i) { return x[i]; }, nullptr), in, depth, q);
}

}  // namespace edge_vlm
