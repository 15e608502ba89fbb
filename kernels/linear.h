// A linear layer: integer weights with a step a column or a block, or floats.
#pragma once
#include "epilogue.h"
#include "run.h"
#include "prologue.h"
#include "tile.h"

#include <cstdint>

namespace edge_vlm {

// Inputs of an integer layer whose sums fit 32 bits on every processor: those of AVX2 (tile.h) are the largest, of products
// up to (255 + 127)^2 for two inputs.
constexpr size_t kMostInputs8 = 29432;

// What weights are, and rows while they are multiplied: floats in both of the middle.
enum class Format { kInt8, kHalf, kFloat, kBf16 };

class Linear {
 public:
  // values (in, out) int8 from -127 on, in up to kMostInputs8; steps (out,), sums_and_bias (2, out): column sums times
  // steps, bias. Values outlive the layer and are read where they lie; where it is faster to bring them into another
  // order when the layer is made, that is done if it `copies`.
  static Linear Int8(const int8_t* values, const float* steps, const float* sums_and_bias, size_t in, size_t out,
                     bool copies);
  // blocks of (out, in), bias (out,); likewise, and they become columns of bytes.
  static Linear Int4(const Blocks4& blocks, const float* bias, size_t in, size_t out, bool copies);
  // values (out, in) fp16, bias (out,); likewise. Products are float32, or bf16 where that is allowed and
  // quicker.
  static Linear Half(const uint16_t* values, const float* bias, size_t in, size_t out, bool may_be_bf16);
  // Whether that is quicker here than float32.
  static bool IsBestInBf16();
  // values (out, in), bias (out,); likewise.
  static Linear Float(const float* values, const float* bias, size_t in, size_t out, bool copies);

  Linear() = default;
  Linear(Linear&& other) noexcept;
  Linear& operator=(Linear&& other) noexcept;
  ~Linear();

  size_t in() const { return in_; }
  size_t out() const { return out_; }

  // result (rows, out) = epilogue(prologue(x (rows, in)) * weight + bias)
  void Apply(const Run& run, const float* x, size_t rows, const Prologue& before, const Epilogue& after,
             float* result) const;

 private:
  // The left side of a product: rows in the layer's format, and of integers what makes numbers of a row's sums.
  struct Left {
    uint8_t* rows;
    Rounded* rounded;
    int32_t* pairs;
  };

  Linear(Format format, const void* values, const float* bias, size_t in, size_t out);
  const Cut& CutOf() const;
  bool IsFloat() const { return format_ == Format::kHalf || format_ == Format::kFloat; }
  void PackAll();
  // Columns of one panel, `depth` rows of them from row `from` on, in the order that tiles read.
  void Pack(size_t panel, size_t from, size_t depth, void* to) const;
  // Bytes of one block of four bits of all columns of a panel, zero where there is no row or no column.
  void Unpack(size_t panel, size_t block, int8_t (*bytes)[kBlock4]) const;
  void MakeRow(const float* x, size_t r, const Prologue& before, const Left& left, float* prepared, uint8_t* bytes) const;
  void MakeTile(const float* const (&rows)[kRows], float* tile) const;
  void MakeRows(const Run& run, const float* x, size_t first, size_t rows, const Prologue& before,
                const Left& left) const;
  void Multiply(const Left& left, size_t first_row, size_t num_rows, size_t panel, void* block, const Epilogue& after,
                float* result) const;
  void MultiplyOnMatrix(const Left& left, size_t first_row, size_t num_rows, size_t panel, const void* block,
                        const Epilogue& after, float* result) const;
  Columns ColumnsOf(size_t panel) const;
  template <bool kHasGelu, bool kHasResidual, class Sum>
  void Store(const Sum* sums, const Left& left, size_t first_row, size_t num_rows, size_t panel,
             const float* residual, float* result) const;

  Format format_ = Format::kInt8;
  bool is_on_matrix_ = false;  // of integers or bf16, where the processor has matrix tiles
  // depth: in, rounded up to what a tile takes; pitch: from one row of the left side to the next
  size_t in_ = 0, out_ = 0, depth_ = 0, pitch_ = 0, num_panels_ = 0;
  const void* values_ = nullptr;
  Blocks4 blocks_ = {};  // instead of values
  uint8_t* panels_ = nullptr;  // columns, panel by panel; null where they are made in use
  float* columns_ = nullptr;  // steps, sums, bias, each (panels * 64,)
  int32_t* pairs_ = nullptr;  // sums of products of neighbours in a column, (panels * 64,)
};

}  // namespace edge_vlm
