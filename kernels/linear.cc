#include "linear.h"

#include "tile.h"

#include <cstdlib>
#include <algorithm>
#include <utility>

namespace edge_vlm {
namespace {

constexpr float kNormEpsilon = 1e-6f;  // as in the graph's LayerNormalization
constexpr size_t kRowsPerQuantising = 16;
constexpr size_t kApart = 32;  // between wide rows, or their lengths of 2^n bytes would meet in the same places of a cache
constexpr float kSmallestStep = 1e-12f;

void* Allocate(size_t bytes) { return std::aligned_alloc(64, RoundUp(bytes, 64)); }

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

// x = step * (q - zero), q in 0 .. 255, less kByteShift on both sides
void Quantise(const float* x, size_t in, size_t depth, uint8_t* q, float* step_out, float* zero_out) {
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
  *step_out = step;
  *zero_out = zero - kByteShift;
}

// Columns of one row, from numbers to the result.
template <bool kHasGelu, bool kHasResidual>
void Finish(const float* numbers, const float* bias, const float* residual, size_t columns, float* to) {
  for (size_t c = 0; c < columns; ++c) {
    float value = numbers[c] + bias[c];
    if (kHasGelu) value = GeluTanh(value);
    to[c] = kHasResidual ? value + residual[c] : value;
  }
}

void Finish(const float* numbers, const float* bias, const float* residual, size_t columns, bool has_gelu, float* to) {
  if (has_gelu)
    Finish<true, false>(numbers, bias, residual, columns, to);
  else if (residual)
    Finish<false, true>(numbers, bias, residual, columns, to);
  else
    Finish<false, false>(numbers, bias, residual, columns, to);
}

}  // namespace

Linear Linear::Int8(const int8_t* values, const float* steps, const float* sums_and_bias, size_t in, size_t out) {
  Linear made(values, in, out, RoundUp(in, 4), true);
  size_t width = made.num_panels_ * kPanel;
  std::memcpy(made.columns_, steps, out * sizeof(float));
  std::memcpy(made.columns_ + width, sums_and_bias, out * sizeof(float));
  std::memcpy(made.columns_ + 2 * width, sums_and_bias + out, out * sizeof(float));
  if (kHasPairs) {
    made.pairs_ = static_cast<int32_t*>(Allocate(width * sizeof(int32_t)));
    std::memset(made.pairs_, 0, width * sizeof(int32_t));
    for (size_t k = 0; k + 1 < in; k += 2)
      for (size_t n = 0; n < out; ++n) made.pairs_[n] += values[k * out + n] * values[(k + 1) * out + n];
  }
  if (kPacksAtLoad) made.PackAll();
  return made;
}

Linear Linear::Half(const uint16_t* values, const float* bias, size_t in, size_t out) {
  Linear made(values, in, out, RoundUp(in, 2), false);
  size_t width = made.num_panels_ * kPanel;
  std::memcpy(made.columns_ + 2 * width, bias, out * sizeof(float));
  return made;
}

Linear::Linear(const void* values, size_t in, size_t out, size_t depth, bool is_int8)
    : is_int8_(is_int8),
      in_(in),
      out_(out),
      depth_(depth),
      pitch_(is_int8 && kPacksAtLoad ? depth : depth + kApart),
      num_panels_(RoundUp(out, kPanel) / kPanel),
      values_(values) {
  size_t bytes = 3 * num_panels_ * kPanel * sizeof(float);
  columns_ = static_cast<float*>(Allocate(bytes));
  std::memset(columns_, 0, bytes);
}

Linear::Linear(Linear&& other) noexcept { *this = std::move(other); }

Linear& Linear::operator=(Linear&& other) noexcept {
  std::swap(is_int8_, other.is_int8_);
  std::swap(in_, other.in_);
  std::swap(out_, other.out_);
  std::swap(depth_, other.depth_);
  std::swap(pitch_, other.pitch_);
  std::swap(num_panels_, other.num_panels_);
  std::swap(values_, other.values_);
  std::swap(panels_, other.panels_);
  std::swap(columns_, other.columns_);
  std::swap(pairs_, other.pairs_);
  return *this;
}

Linear::~Linear() {
  std::free(panels_);
  std::free(columns_);
  std::free(pairs_);
}

void Linear::PackAll() {
  panels_ = static_cast<uint8_t*>(Allocate(num_panels_ * panel_bytes()));
  for (size_t panel = 0; panel < num_panels_; ++panel) Pack(panel, 0, depth_, panels_ + panel * panel_bytes());
}

size_t Linear::panel_bytes() const { return depth_ * kPanel * sizeof(Column8); }

void Linear::Pack(size_t panel, size_t from, size_t depth, void* to) const {
  size_t column = panel * kPanel, columns = std::min<size_t>(kPanel, out_ - column);
  size_t valid = std::min(depth, in_ - from);
  if (is_int8_)
    Pack8(static_cast<const int8_t*>(values_) + from * out_ + column, out_, valid, columns, static_cast<Column8*>(to));
  else
    PackHalf(static_cast<const uint16_t*>(values_) + column * in_ + from, in_, valid, columns,
             static_cast<HalfColumn*>(to));
}

void Linear::Apply(const Run& run, const float* x, size_t rows, const Prologue& before, const Epilogue& after,
                   float* result) const {
  size_t element = is_int8_ ? sizeof(Row8) : sizeof(float);
  Scratch<uint8_t> bytes(run, rows * pitch_ * element);
  Scratch<float> steps(run, rows), zeros(run, rows);
  Scratch<int32_t> pairs(run, rows);
  Left left{bytes.get(), steps.get(), zeros.get(), pairs.get()};
  size_t num_groups = (rows + kRowsPerQuantising - 1) / kRowsPerQuantising;
  Scratch<float> prepared(run, num_groups * in_);
  Scratch<uint8_t> rounded(run, kHasPairs ? num_groups * depth_ : 0);
  run.For(num_groups, [&](size_t group) {
    size_t end = std::min(rows, (group + 1) * kRowsPerQuantising);
    for (size_t r = group * kRowsPerQuantising; r < end; ++r) {
      const float* row = Prepare(x + r * in_, in_, before, prepared.get() + group * in_);
      if (is_int8_) {
        uint8_t* q = kHasPairs ? rounded.get() + group * depth_ : left.rows + r * pitch_;
        Quantise(row, in_, depth_, q, &left.steps[r], &left.zeros[r]);
        if constexpr (kHasPairs) left.pairs[r] = WidenRow8(q, depth_, reinterpret_cast<Row8*>(left.rows) + r * pitch_);
      } else {
        auto* to = reinterpret_cast<float*>(left.rows) + r * pitch_;
        std::memcpy(to, row, in_ * sizeof(float));
        for (size_t i = in_; i < depth_; ++i) to[i] = 0;
      }
    }
  });
  const Cut& cut = is_int8_ ? kCut8 : kCutHalf;
  size_t row_tasks = (rows + cut.rows_per_task - 1) / cut.rows_per_task;
  size_t panel_tasks = (num_panels_ + cut.panels_per_task - 1) / cut.panels_per_task;
  run.For(row_tasks * panel_tasks, [&](size_t task) {
    size_t first_row = task % row_tasks * cut.rows_per_task, last_row = std::min(rows, first_row + cut.rows_per_task);
    size_t first_panel = task / row_tasks * cut.panels_per_task;
    size_t width = kPanel * (is_int8_ ? sizeof(Column8) : sizeof(HalfColumn));
    Scratch<uint8_t> block(run, panels_ ? 0 : width * std::min(cut.depth, depth_));
    for (size_t panel = first_panel; panel < std::min(num_panels_, first_panel + cut.panels_per_task); ++panel)
      for (size_t row = first_row; row < last_row; row += cut.rows_per_tile)
        Multiply(left, row, std::min(cut.rows_per_tile, last_row - row), panel, block.get(), after, result);
  });
}

void Linear::Multiply(const Left& left, size_t first_row, size_t num_rows, size_t panel, void* block,
                      const Epilogue& after, float* result) const {
  alignas(64) uint8_t storage[kMostRows * kPanel * sizeof(int32_t)];
  auto* sums = reinterpret_cast<int32_t*>(storage);    // of an integer layer
  auto* products = reinterpret_cast<float*>(storage);  // of a half-precision one
  alignas(64) float numbers[kPanel];
  size_t block_depth = is_int8_ ? kCut8.depth : kCutHalf.depth;
  int count = static_cast<int>(num_rows);
  size_t columns = std::min<size_t>(kPanel, out_ - panel * kPanel);
  for (size_t k = 0; k < depth_; k += block_depth) {
    size_t depth = std::min(block_depth, depth_ - k);
    const void* packed = block;
    if (panels_)
      packed = panels_ + panel * panel_bytes();
    else
      Pack(panel, k, depth, block);
    if (is_int8_)
      TileU8S8(reinterpret_cast<const Row8*>(left.rows) + first_row * pitch_ + k, pitch_,
               static_cast<const Column8*>(packed), depth, count, sums, k > 0);
    else
      TileHalf(reinterpret_cast<const float*>(left.rows) + first_row * pitch_ + k, pitch_,
               static_cast<const HalfColumn*>(packed), depth, count, products, k > 0);
  }
  size_t width = num_panels_ * kPanel;
  const float *steps = columns_ + panel * kPanel, *column_sums = steps + width, *bias = steps + 2 * width;
  for (size_t r = 0; r < num_rows; ++r) {
    const float* row = is_int8_ ? numbers : products + r * kPanel;
    if (is_int8_) {
      const int32_t* sum = sums + r * kPanel;
      float step = left.steps[first_row + r], shift = -step * left.zeros[first_row + r];
      for (int c = 0; c < kPanel; ++c) {
        int32_t whole = kHasPairs ? sum[c] - left.pairs[first_row + r] - pairs_[panel * kPanel + c] : sum[c];
        numbers[c] = static_cast<float>(whole) * step * steps[c] + shift * column_sums[c];
      }
    }
    size_t place = (first_row + r) * out_ + panel * kPanel;
    const float* residual = after.residual ? after.residual + place : nullptr;
    if (columns == kPanel)  // a number of columns that the compiler knows
      Finish(row, bias, residual, kPanel, after.has_gelu, result + place);
    else
      Finish(row, bias, residual, columns, after.has_gelu, result + place);
  }
}

}  // namespace edge_vlm
