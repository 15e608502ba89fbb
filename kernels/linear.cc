#include "linear.h"

#include "matrix.h"
#include "tile.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace edge_vlm {
namespace {

constexpr size_t kRowsPerGroup = 3 * kRows;  // rows that one task makes
constexpr size_t kTasksPerCore = 3;  // at least, in a product: many cores get smaller tasks
constexpr size_t kApart = 32;  // elements between wide rows

// What a format asks of a product, by Format: bytes of an element, how to cut it, and the unit of its depth.
struct Shape {
  size_t row_bytes, column_bytes;
  const Cut& cut;
  size_t unit;
};
constexpr Shape kShapes[] = {
    {sizeof(Row8), sizeof(Column8), kCut8, 4},
    {sizeof(float), sizeof(FloatColumn), kCutFloat, kFloatGroup},
    {sizeof(float), sizeof(FloatColumn), kCutFloat, kFloatGroup},
    {sizeof(uint16_t), sizeof(uint16_t), kCutPacked, 2},
};

const Shape& ShapeOf(Format format) { return kShapes[static_cast<size_t>(format)]; }

void* Allocate(size_t bytes, size_t alignment = 64) { return std::aligned_alloc(alignment, RoundUp(bytes, alignment)); }

// Memory that is about to be written whole. Linux brings its pages in at once, where it can (since 5.14): one by one, at
// their first touch, takes as long as packing does.
void* AllocateFilled(size_t bytes) {
  constexpr size_t kPage = 4096;
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which old headers lack
  void* made = Allocate(bytes, kPage);
  madvise(made, bytes / kPage * kPage, kPopulateWrite);
  return made;
}

bool IsOnMatrix(Format format) {
  if constexpr (kMayHaveMatrix) return (format == Format::kInt8 || format == Format::kBf16) && HasMatrix();
  return false;
}

// The number of elements of which the depth is a multiple.
size_t UnitOf(Format format) {
  const Shape& shape = ShapeOf(format);
  return IsOnMatrix(format) ? kMatrixBytes / shape.row_bytes : shape.unit;
}

// Elements between rows. Without them rows of 2^n bytes would meet in the same places of a cache.
size_t ApartOf(Format format) {
  if (IsOnMatrix(format)) return UnitOf(format);
  return format == Format::kInt8 && !kPacksAtLoad ? kApart : 0;
}

void* Zeros(size_t bytes) { return std::memset(Allocate(bytes), 0, bytes); }

}  // namespace

Linear Linear::Int8(const int8_t* values, const float* steps, const float* sums_and_bias, size_t in, size_t out,
                    bool copies) {
  Linear made(Format::kInt8, values, sums_and_bias + out, in, out);
  size_t width = made.num_panels_ * kPanel;
  std::memcpy(made.columns_, steps, out * sizeof(float));
  std::memcpy(made.columns_ + width, sums_and_bias, out * sizeof(float));
  if (kHasPairs)
    for (size_t k = 0; k + 1 < in; k += 2)
      for (size_t n = 0; n < out; ++n) made.pairs_[n] += values[k * out + n] * values[(k + 1) * out + n];
  if (kPacksAtLoad && copies) made.PackAll();
  return made;
}

Linear Linear::Int4(const Blocks4& blocks, const float* bias, size_t in, size_t out, bool copies) {
  Linear made(Format::kInt8, nullptr, bias, in, out);
  made.blocks_ = blocks;
  size_t width = made.num_panels_ * kPanel;
  for (size_t n = 0; n < out; ++n) made.columns_[n] = blocks.StepOf(n);
  int8_t bytes[kPanel][kBlock4];
  for (size_t n = 0; n < width; n += kPanel) {
    int32_t sums[kPanel] = {}, pairs[kPanel] = {};
    for (size_t b = 0; b < blocks.num_blocks; ++b) {
      made.Unpack(n / kPanel, b, bytes);
      for (size_t c = 0; c < kPanel; ++c)
        for (size_t k = 0; k < kBlock4; k += 2)
          sums[c] += bytes[c][k] + bytes[c][k + 1], pairs[c] += bytes[c][k] * bytes[c][k + 1];
    }
    for (size_t c = 0; c < kPanel; ++c) {
      made.columns_[width + n + c] = static_cast<float>(sums[c]) * made.columns_[n + c];
      if (kHasPairs) made.pairs_[n + c] = pairs[c];
    }
  }
  if (kPacksAtLoad && copies) made.PackAll();
  return made;
}

bool Linear::IsBestInBf16() {
  if constexpr (kMayHaveMatrix)
    if (HasMatrix()) return true;
  if constexpr (kMayHaveBf16) return HasBf16();
  return false;
}

Linear Linear::Half(const uint16_t* values, const float* bias, size_t in, size_t out, bool may_be_bf16) {
  bool is_bf16 = false;
  if constexpr (kMayHaveBf16) is_bf16 = may_be_bf16 && IsBestInBf16();
  Linear made(is_bf16 ? Format::kBf16 : Format::kHalf, values, bias, in, out);
  if (made.format_ == Format::kBf16) made.PackAll();
  return made;
}

Linear Linear::Float(const float* values, const float* bias, size_t in, size_t out, bool copies) {
  Linear made(Format::kFloat, values, bias, in, out);
  if (copies) made.PackAll();
  return made;
}

Linear::Linear(Format format, const void* values, const float* bias, size_t in, size_t out)
    : format_(format),
      is_on_matrix_(IsOnMatrix(format)),
      in_(in),
      out_(out),
      depth_(RoundUp(in, UnitOf(format))),
      pitch_(depth_ + ApartOf(format)),
      num_panels_(RoundUp(out, kPanel) / kPanel),
      values_(values) {
  size_t width = num_panels_ * kPanel;
  columns_ = static_cast<float*>(Zeros(3 * width * sizeof(float)));
  std::memcpy(columns_ + 2 * width, bias, out * sizeof(float));
  if (kHasPairs && format == Format::kInt8) pairs_ = static_cast<int32_t*>(Zeros(width * sizeof(int32_t)));
}

Linear::Linear(Linear&& other) noexcept { *this = std::move(other); }

Linear& Linear::operator=(Linear&& other) noexcept {
  std::swap(format_, other.format_);
  std::swap(is_on_matrix_, other.is_on_matrix_);
  std::swap(in_, other.in_);
  std::swap(out_, other.out_);
  std::swap(depth_, other.depth_);
  std::swap(pitch_, other.pitch_);
  std::swap(num_panels_, other.num_panels_);
  std::swap(values_, other.values_);
  std::swap(blocks_, other.blocks_);
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
  size_t bytes = depth_ * kPanel * ShapeOf(format_).column_bytes;
  panels_ = static_cast<uint8_t*>(AllocateFilled(num_panels_ * bytes));
  for (size_t panel = 0; panel < num_panels_; ++panel) Pack(panel, 0, depth_, panels_ + panel * bytes);
}

void Linear::Unpack(size_t panel, size_t block, int8_t (*bytes)[kBlock4]) const {
  size_t column = panel * kPanel, columns = std::min<size_t>(kPanel, out_ - column);
  size_t valid = std::min(kBlock4, in_ - block * kBlock4);
  blocks_.Unpack(column, columns, block, columns_ + column, bytes);
  std::memset(bytes + columns, 0, (kPanel - columns) * kBlock4);
  if (valid < kBlock4)
    for (size_t c = 0; c < columns; ++c) std::memset(bytes[c] + valid, 0, kBlock4 - valid);
}

void Linear::Pack(size_t panel, size_t from, size_t depth, void* to) const {
  size_t column = panel * kPanel, columns = std::min<size_t>(kPanel, out_ - column);
  size_t valid = std::min(depth, in_ - from), unit = blocks_.values ? kBlock4 : ShapeOf(format_).unit;
  size_t filled = std::min(RoundUp(valid, unit), depth), row_bytes = kPanel * ShapeOf(format_).column_bytes;
  if (filled < depth) std::memset(static_cast<uint8_t*>(to) + filled * row_bytes, 0, (depth - filled) * row_bytes);
  if (blocks_.values) {
    int8_t bytes[kPanel][kBlock4];
    for (size_t k = 0; k < filled; k += kBlock4) {
      Unpack(panel, (from + k) / kBlock4, bytes);
      Place8(bytes, k, depth, static_cast<Column8*>(to));
    }
    return;
  }
  if (format_ == Format::kInt8) {
    auto* bytes = static_cast<const int8_t*>(values_) + from * out_ + column;
    return Pack8(bytes, out_, valid, columns, static_cast<Column8*>(to));
  }
  size_t place = column * in_ + from;
  if (format_ == Format::kFloat)
    return PackFloat(static_cast<const float*>(values_) + place, in_, valid, columns, static_cast<FloatColumn*>(to));
  auto* halves = static_cast<const uint16_t*>(values_) + place;
  if constexpr (kMayHaveBf16)
    if (format_ == Format::kBf16) return PackBf16(halves, in_, valid, columns, static_cast<uint16_t*>(to));
  PackHalf(halves, in_, valid, columns, static_cast<FloatColumn*>(to));
}

const Cut& Linear::CutOf() const {
  if (is_on_matrix_) return kCutMatrix;
  bool is_packed_in_use = format_ == Format::kInt8 && !panels_;
  return kPacksAtLoad && is_packed_in_use ? kCutUnpacked : ShapeOf(format_).cut;
}

// Makes row r of the left side of integers or bf16. `prepared` has room for a row of floats, `bytes` for one to widen.
void Linear::MakeRow(const float* x, size_t r, const Prologue& before, const Left& left, float* prepared,
                     uint8_t* bytes) const {
  uint8_t* row = left.rows + r * pitch_ * ShapeOf(format_).row_bytes;
  if constexpr (kMayHaveBf16)
    if (format_ == Format::kBf16)
      return RowToBf16(Prepare(x, in_, before, prepared), in_, depth_, reinterpret_cast<uint16_t*>(row));
  left.rounded[r] = Quantise(x, in_, depth_, before, prepared, kHasPairs ? bytes : row);
  if constexpr (kHasPairs) left.pairs[r] = WidenRow8(bytes, depth_, reinterpret_cast<Row8*>(row));
}

// Makes a tile of the left side of floats.
void Linear::MakeTile(const float* const (&rows)[kRows], float* tile) const {
  size_t whole = in_ / kFloatGroup * kFloatGroup;
  for (size_t k = 0; k < whole; k += kFloatGroup)
    for (const float* row : rows) std::memcpy(tile, row + k, kFloatGroup * sizeof(float)), tile += kFloatGroup;
  if (whole < depth_)
    for (const float* row : rows)
      for (size_t k = whole; k < depth_; ++k) *tile++ = k < in_ ? row[k] : 0;
}

// Makes the left side's rows from `first` on, at most kRowsPerGroup; `rows` is the number of all rows.
void Linear::MakeRows(const Run& run, const float* x, size_t first, size_t rows, const Prologue& before,
                      const Left& left) const {
  Scratch<float> prepared(run, kRows * in_);
  Scratch<uint8_t> narrow(run, kHasPairs ? depth_ : 0);
  size_t end = std::min(rows, first + kRowsPerGroup);
  if (!IsFloat()) {
    for (size_t r = first; r < end; ++r) MakeRow(x + r * in_, r, before, left, prepared.get(), narrow.get());
    return;
  }
  for (size_t start = first; start < end; start += kRows) {
    const float* tile[kRows];
    for (size_t i = 0; i < kRows; ++i) {
      size_t r = std::min(start + i, end - 1);  // the last row fills up its tile
      tile[i] = Prepare(x + r * in_, in_, before, prepared.get() + i * in_);
    }
    MakeTile(tile, reinterpret_cast<float*>(left.rows) + start * pitch_);
  }
}

void Linear::Apply(const Run& run, const float* x, size_t rows, const Prologue& before, const Epilogue& after,
                   float* result) const {
  if (!rows) return;
  size_t num_chunks = IsFloat() ? (rows + kMostFloatRows - 1) / kMostFloatRows : 1;
  size_t chunk = RoundUp((rows + num_chunks - 1) / num_chunks, kRows);
  for (size_t first = 0; first < rows; first += chunk) {
    const float* residual = after.residual ? after.residual + first * out_ : nullptr;
    ApplyToChunk(run, x + first * in_, std::min(chunk, rows - first), before, {after.after, residual},
                 result + first * out_);
  }
}

void Linear::ApplyToChunk(const Run& run, const float* x, size_t rows, const Prologue& before, const Epilogue& after,
                          float* result) const {
  const Shape& shape = ShapeOf(format_);
  const Cut& cut = CutOf();
  const size_t row_unit = is_on_matrix_ ? kMatrixRows : kRows;
  Scratch<uint8_t> bytes(run, RoundUp(rows, row_unit) * pitch_ * shape.row_bytes);
  Scratch<Rounded> rounded(run, rows);
  Scratch<int32_t> pairs(run, kHasPairs ? rows : 0);
  Left left{bytes.get(), rounded.get(), pairs.get()};
  run.For((rows + kRowsPerGroup - 1) / kRowsPerGroup,
          [&](size_t group) { MakeRows(run, x, group * kRowsPerGroup, rows, before, left); });
  size_t row_tasks = (rows + cut.rows_per_task - 1) / cut.rows_per_task;
  size_t rows_per_task = RoundUp((rows + row_tasks - 1) / row_tasks, row_unit);
  static const size_t num_tasks = kTasksPerCore * NumCores();
  size_t panels_per_task = std::clamp<size_t>(row_tasks * num_panels_ / num_tasks, 1, cut.most_panels_per_task);
  size_t panel_tasks = (num_panels_ + panels_per_task - 1) / panels_per_task;
  run.For(row_tasks * panel_tasks, [&](size_t task) {
    size_t first_row = task % row_tasks * rows_per_task, last_row = std::min(rows, first_row + rows_per_task);
    size_t first_panel = task / row_tasks * panels_per_task;
    size_t depth = std::min(cut.depth, depth_);
    Scratch<uint8_t> block(run, panels_ ? 0 : kPanel * shape.column_bytes * depth);
    for (size_t panel = first_panel; panel < std::min(num_panels_, first_panel + panels_per_task); ++panel) {
      if (!panels_ && depth == depth_) Pack(panel, 0, depth, block.get());  // once for all rows
      if constexpr (kMayHaveMatrix)
        if (is_on_matrix_) {
          MultiplyOnMatrix(left, first_row, last_row - first_row, panel, block.get(), after, result);
          continue;
        }
      for (size_t row = first_row; row < last_row; row += cut.rows_per_tile)
        Multiply(left, row, std::min(cut.rows_per_tile, last_row - row), panel, block.get(), after, result);
    }
  });
}

void Linear::Multiply(const Left& left, size_t first_row, size_t num_rows, size_t panel, void* block,
                      const Epilogue& after, float* result) const {
  alignas(64) uint8_t storage[kMostRows * kPanel * sizeof(int32_t)];
  auto* sums = reinterpret_cast<int32_t*>(storage);    // where the layer has integers
  auto* products = reinterpret_cast<float*>(storage);  // where it has floats
  const Shape& shape = ShapeOf(format_);
  const Cut& cut = CutOf();
  int count = static_cast<int>(num_rows);
  if (cut.rows_per_tile == kRows)  // few at a time
    for (size_t r = 0; r < num_rows; ++r)
      for (size_t c = 0; c < kPanel; c += kLine) {
        size_t place = (first_row + r) * out_ + panel * kPanel + c;
        if (after.residual) __builtin_prefetch(after.residual + place);
        __builtin_prefetch(result + place, 1);
      }
  for (size_t k = 0; k < depth_; k += cut.depth) {
    size_t depth = std::min(cut.depth, depth_ - k);
    const void* rows = left.rows + (first_row * pitch_ + (IsFloat() ? kRows * k : k)) * shape.row_bytes;
    const void* packed = panels_ ? panels_ + (panel * depth_ + k) * kPanel * shape.column_bytes : block;
    if (!panels_ && depth < depth_) Pack(panel, k, depth, block);
    if constexpr (kMayHaveBf16)
      if (format_ == Format::kBf16) {
        TileBf16(static_cast<const uint16_t*>(rows), pitch_, static_cast<const uint16_t*>(packed), depth, count, products);
        continue;
      }
    if (format_ == Format::kInt8)
      TileU8S8(static_cast<const Row8*>(rows), pitch_, static_cast<const Column8*>(packed), depth, count, sums, k > 0);
    else
      TileFloat(static_cast<const float*>(rows), pitch_, static_cast<const FloatColumn*>(packed), depth, count, products,
                k > 0);
  }
  auto store = [&](auto* of) {
    ByAfter(after.after, [&](auto constant) {
      Store<decltype(constant)::value>(of, left, first_row, num_rows, panel, after.residual, result);
    });
  };
  if (format_ == Format::kInt8)
    store(sums);
  else
    store(products);
}

void Linear::MultiplyOnMatrix(const Left& left, size_t first_row, size_t num_rows, size_t panel, const void* block,
                              const Epilogue& after, float* result) const {
  if constexpr (kMayHaveMatrix) {
    const Shape& shape = ShapeOf(format_);
    size_t panel_bytes = depth_ * kPanel * shape.column_bytes, first = panel * kPanel;
    const void* packed = panels_ ? panels_ + panel * panel_bytes : block;
    const void* ahead = panels_ && panel + 1 < num_panels_ ? panels_ + (panel + 1) * panel_bytes : packed;
    size_t place = first_row * out_ + first;
    MatrixScope scope;
    MultiplyMatrix({left.rows + first_row * pitch_ * shape.row_bytes, packed, ahead, pitch_ * shape.row_bytes,
                    depth_ * shape.row_bytes, num_rows, ColumnsOf(panel), std::min<size_t>(kPanel, out_ - first),
                    left.rounded + first_row, after.residual ? after.residual + place : nullptr, result + place, out_,
                    after.after, format_ == Format::kBf16});
  }
}

Columns Linear::ColumnsOf(size_t panel) const {
  size_t width = num_panels_ * kPanel, first = panel * kPanel;
  const float* steps = columns_ + first;
  return {steps, steps + width, steps + 2 * width, pairs_ ? pairs_ + first : nullptr};
}

template <After kAfter, class Sum>
void Linear::Store(const Sum* sums, const Left& left, size_t first_row, size_t num_rows, size_t panel,
                   const float* residual, float* result) const {
  size_t first = panel * kPanel, count = std::min<size_t>(kPanel, out_ - first);
  const Columns columns = ColumnsOf(panel);
  float added[kPanel] = {}, whole[kPanel];  // the columns of a panel that is not full
  for (size_t r = 0; r < num_rows; ++r, sums += kPanel) {
    size_t row = first_row + r, place = row * out_ + first;
    Rounded rounded = format_ == Format::kInt8 ? left.rounded[row] : Rounded{};
    int32_t pairs = kHasPairs && format_ == Format::kInt8 ? left.pairs[row] : 0;
    if (count == kPanel) {
      const float* from = kAfter == After::kResidual ? residual + place : nullptr;
      Finish<kPanel, kAfter>(sums, columns, rounded, pairs, from, result + place);
    } else {
      if (kAfter == After::kResidual) std::memcpy(added, residual + place, count * sizeof(float));
      Finish<kPanel, kAfter>(sums, columns, rounded, pairs, added, whole);
      std::memcpy(result + place, whole, count * sizeof(float));
    }
  }
}

}  // namespace edge_vlm
