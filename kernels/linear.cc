#include "linear.h"

#include "numbers.h"
#include "tile.h"

#include <cstdlib>
#include <algorithm>
#include <utility>

namespace edge_vlm {
namespace {

constexpr float kNormEpsilon = 1e-6f;  // as in the graph's LayerNormalization
constexpr size_t kRowsPerTask = 96;    // their quantised bytes stay in the second cache
constexpr size_t kPanelsPerTask = 8;   // and so do these panels
constexpr size_t kRowsPerQuantising = 16;
constexpr float kSmallestStep = 1e-12f;

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

void* Allocate(size_t bytes) { return std::aligned_alloc(64, RoundUp(bytes, 64)); }

float HalfToFloat(uint16_t half) {
  uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = (half >> 10) & 31, mantissa = half & 1023;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
  } else {
    uint32_t bits = ((exponent + 112) << 23) | (mantissa << 13);
    std::memcpy(&value, &bits, 4);
  }
  return sign ? -value : value;
}

// One row as the prologue wants it; returns x itself where it wants nothing.
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

// x = step * (q - zero), q in 0 .. 255
void Quantise(const float* x, size_t in, size_t depth, uint8_t* q, float* step_out, float* zero_out) {
  float low = 0, high = 0;
  for (size_t i = 0; i < in; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  float step = (high - low) / 255.0f;
  step = step > kSmallestStep ? step : kSmallestStep;
  float inverse = 1.0f / step, zero = std::rint(-low * inverse);
  for (size_t i = 0; i < in; ++i) {
    float value = std::rint(x[i] * inverse) + zero;
    value = value < 0 ? 0 : value;
    value = value > 255 ? 255 : value;
    q[i] = static_cast<uint8_t>(static_cast<int32_t>(value));
  }
  for (size_t i = in; i < depth; ++i) q[i] = 0;
  *step_out = step;
  *zero_out = zero;
}

// 64 columns of one row from their sums.
template <bool kHasGelu>
void Finish(float* y, const float* bias, const float* residual, size_t columns) {
  for (size_t c = 0; c < columns; ++c) {
    float value = y[c] + bias[c];
    if (kHasGelu) value = GeluTanh(value);
    y[c] = residual ? value + residual[c] : value;
  }
}

}  // namespace

Linear Linear::Int8(const int8_t* values, const float* steps, const float* sums_and_bias, size_t in, size_t out) {
  Linear made;
  made.is_int8_ = true;
  made.in_ = in, made.out_ = out, made.depth_ = RoundUp(in, 4), made.num_panels_ = RoundUp(out, kPanel) / kPanel;
  size_t width = made.num_panels_ * kPanel;
  auto* panels = static_cast<int8_t*>(Allocate(made.depth_ * width));
  std::memset(panels, 0, made.depth_ * width);
  for (size_t k = 0; k < in; ++k)
    for (size_t n0 = 0; n0 < out; n0 += kPanel) {
      int8_t* to = panels + n0 * made.depth_ + k / 4 * kPanel * 4 + k % 4;
      for (size_t n = n0; n < std::min(out, n0 + kPanel); ++n) to[(n - n0) * 4] = values[k * out + n];
    }
  made.panels_ = panels;
  made.columns_ = static_cast<float*>(Allocate(3 * width * sizeof(float)));
  std::memset(made.columns_, 0, 3 * width * sizeof(float));
  std::memcpy(made.columns_, steps, out * sizeof(float));
  std::memcpy(made.columns_ + width, sums_and_bias, out * sizeof(float));
  std::memcpy(made.columns_ + 2 * width, sums_and_bias + out, out * sizeof(float));
  return made;
}

Linear Linear::Half(const uint16_t* values, const float* bias, size_t in, size_t out) {
  Linear made;
  made.in_ = in, made.out_ = out, made.depth_ = RoundUp(in, 2), made.num_panels_ = RoundUp(out, kPanel) / kPanel;
  size_t width = made.num_panels_ * kPanel;
  auto* panels = static_cast<uint16_t*>(Allocate(made.depth_ * width * 2));
  std::memset(panels, 0, made.depth_ * width * 2);
  for (size_t n = 0; n < out; ++n) {
    uint16_t* to = panels + n / kPanel * kPanel * made.depth_ + n % kPanel * 2;
    for (size_t k = 0; k < in; ++k) to[k / 2 * kPanel * 2 + k % 2] = ToBf16(HalfToFloat(values[n * in + k]));
  }
  made.panels_ = panels;
  made.columns_ = static_cast<float*>(Allocate(3 * width * sizeof(float)));
  std::memset(made.columns_, 0, 3 * width * sizeof(float));
  std::memcpy(made.columns_ + 2 * width, bias, out * sizeof(float));
  return made;
}

Linear::Linear(Linear&& other) noexcept { *this = std::move(other); }

Linear& Linear::operator=(Linear&& other) noexcept {
  std::swap(is_int8_, other.is_int8_);
  std::swap(in_, other.in_);
  std::swap(out_, other.out_);
  std::swap(depth_, other.depth_);
  std::swap(num_panels_, other.num_panels_);
  std::swap(panels_, other.panels_);
  std::swap(columns_, other.columns_);
  return *this;
}

Linear::~Linear() {
  std::free(panels_);
  std::free(columns_);
}

void Linear::Apply(const Run& run, const float* x, size_t rows, const Prologue& before, const Epilogue& after,
                   float* result) const {
  size_t element = is_int8_ ? 1 : 2;
  Scratch<uint8_t> left(run, rows * depth_ * element);
  Scratch<float> steps(run, rows), zeros(run, rows);
  size_t num_groups = (rows + kRowsPerQuantising - 1) / kRowsPerQuantising;
  Scratch<float> prepared(run, num_groups * in_);
  run.For(num_groups, [&](size_t group) {
    size_t end = std::min(rows, (group + 1) * kRowsPerQuantising);
    for (size_t r = group * kRowsPerQuantising; r < end; ++r) {
      const float* row = Prepare(x + r * in_, in_, before, prepared.get() + group * in_);
      if (is_int8_) {
        Quantise(row, in_, depth_, left.get() + r * depth_, &steps[r], &zeros[r]);
      } else {
        auto* to = reinterpret_cast<uint16_t*>(left.get()) + r * depth_;
        for (size_t i = 0; i < in_; ++i) to[i] = ToBf16(row[i]);
        for (size_t i = in_; i < depth_; ++i) to[i] = 0;
      }
    }
  });
  size_t row_tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  size_t panel_tasks = (num_panels_ + kPanelsPerTask - 1) / kPanelsPerTask;
  run.For(row_tasks * panel_tasks, [&](size_t task) {
    size_t first_row = task % row_tasks * kRowsPerTask, first_panel = task / row_tasks * kPanelsPerTask;
    Multiply(left.get(), steps.get(), zeros.get(), first_row, std::min(kRowsPerTask, rows - first_row), first_panel,
             std::min(kPanelsPerTask, num_panels_ - first_panel), after, result);
  });
}

void Linear::Multiply(const void* left, const float* row_steps, const float* row_zeros, size_t first_row,
                      size_t num_rows, size_t first_panel, size_t num_panels, const Epilogue& after,
                      float* result) const {
  size_t width = num_panels_ * kPanel;
  alignas(64) int32_t sums[kRows * kPanel];
  alignas(64) float values[kRows * kPanel];
  for (size_t panel = first_panel; panel < first_panel + num_panels; ++panel) {
    const float *steps = columns_ + panel * kPanel, *column_sums = steps + width, *bias = steps + 2 * width;
    size_t columns = std::min<size_t>(kPanel, out_ - panel * kPanel);
    for (size_t r0 = first_row; r0 < first_row + num_rows; r0 += kRows) {
      int count = static_cast<int>(std::min<size_t>(kRows, first_row + num_rows - r0));
      if (is_int8_) {
        TileU8S8(static_cast<const uint8_t*>(left) + r0 * depth_, depth_,
                 static_cast<const int8_t*>(panels_) + panel * depth_ * kPanel, depth_, count, sums);
        for (int r = 0; r < count; ++r) {
          float step = row_steps[r0 + r], shift = -step * row_zeros[r0 + r];
          for (int c = 0; c < kPanel; ++c)
            values[r * kPanel + c] =
                static_cast<float>(sums[r * kPanel + c]) * step * steps[c] + shift * column_sums[c];
        }
      } else {
        TileBf16(static_cast<const uint16_t*>(left) + r0 * depth_, depth_,
                 static_cast<const uint16_t*>(panels_) + panel * depth_ * kPanel, depth_, count, kPanel, values, kPanel,
                 false);
      }
      for (int r = 0; r < count; ++r) {
        size_t place = (r0 + r) * out_ + panel * kPanel;
        float* row = values + r * kPanel;
        const float* residual = after.residual ? after.residual + place : nullptr;
        if (after.has_gelu)
          Finish<true>(row, bias, residual, columns);
        else
          Finish<false>(row, bias, residual, columns);
        std::memcpy(result + place, row, columns * sizeof(float));
      }
    }
  }
}

}  // namespace edge_vlm
