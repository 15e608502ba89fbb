// A linear layer: integer weights with a step a column or a block, or floats.
#pragma once
#include "epilogue.h"
#include "run.h"
#include "prologue.h"
#include "tile.h"

#include <cstdint>

namespace edge_vlm {

// The most inputs of an integer layer whose sums fit 32 bits on every processor. AVX2 (avx2/target.h) has the largest
// sums: two inputs give a product up to (255 + 127)^2.
constexpr size_t kMostInputs8 = 29432;

// The type of weights, and of rows in a product: kHalf and kFloat both multiply floats.
enum class Format { kInt8, kHalf, kFloat, kBf16 };

// Float layers take so many rows at a time: every panel passes all of them, so they must stay in the third cache.
constexpr size_t kMostFloatRows = 4 * kMostRows;

class Linear {
 public:
  // values (in, out) int8 from -127 on, in up to kMostInputs8; steps (out,), sums_and_bias (2, out): column sums times
  // steps, bias. Values must outlive the layer, which reads them where they lie; a layer that `copies` brings them into
  // another order when it is made, where that is faster.
  static Linear Int8(const int8_t* values, const float* steps, const float* sums_and_bias, size_t in, size_t out,
                     bool copies);
  // blocks of (out, in), bias (out,); likewise, and the layer turns blocks into columns of bytes.
  static Linear Int4(const Blocks4& blocks, const float* bias, size_t in, size_t out, bool copies);
  // values (out, in) fp16, bias (out,); likewise. Products are float32, or bf16 where may_be_bf16 allows it and it is
  // quicker.
  static Linear Half(const uint16_t* values, const float* bias, size_t in, size_t out, bool may_be_bf16);
  // Whether bf16 is quicker than float32 on this processor.
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
  // The left side of a product: rows in the layer's format and, for integers, what turns a row's sums into numbers.
  struct Left {
    uint8_t* rows;
    Rounded* rounded;
    int32_t* pairs;
  };

  Linear(Format format, const void* values, const float* bias, size_t in, size_t out);
  const Cut& CutOf() const;
  bool IsFloat() const { return format_ == Format::kHalf || format_ == Format::kFloat; }
  void PackAll();
  // Writes columns of one panel, `depth` rows of them from row `from` on, in the order that tiles read.
  void Pack(size_t panel, size_t from, size_t depth, void* to) const;
  // Writes the bytes of one block of four bits for all columns of a panel, zero where there is no row or no column.
  void Unpack(size_t panel, size_t block, int8_t (*bytes)[kBlock4]) const;
  void MakeRow(const float* x, size_t r, const Prologue& before, const Left& left, float* prepared, uint8_t* bytes) const;
  void MakeTile(const float* const (&rows)[kRows], float* tile) const;
  void MakeRows(const Run& run, const float* x, size_t first, size_t rows, const Prologue& before,
                const Left& left) const;
  void ApplyToChunk(const Run& run, const float* x, size_t rows, const Prologue& before, const Epilogue& after,
                    float* result) const;
  void Multiply(const Left& left, size_t first_row, size_t num_rows, size_t panel, void* block, const Epilogue& after,
                float* result) const;
  void MultiplyOnMatrix(const Left& left, size_t first_row, size_t num_rows, size_t panel, const void* block,
                        const Epilogue& after, float* result) const;
  Columns ColumnsOf(size_t panel) const;
  template <After kAfter, class Sum>
  void Store(const Sum* sums, const Left& left, size_t first_row, size_t num_rows, size_t panel,
             const float* residual, float* result) const;

  Format format_ = Format::kInt8;
  bool is_on_matrix_ = false;  // true for integers and bf16 where the processor has matrix tiles
  // depth: in, rounded up to what a tile takes; pitch: from one row of the left side to the next
  size_t in_ = 0, out_ = 0, depth_ = 0, pitch_ = 0, num_panels_ = 0;
  const void* values_ = nullptr;
  Blocks4 blocks_ = {};  // instead of values
  uint8_t* panels_ = nullptr;  // columns, panel by panel; null where each product makes them
  float* columns_ = nullptr;  // steps, sums, bias, each (panels * 64,)
  int32_t* pairs_ = nullptr;  // sums of products of neighbours in a column, (panels * 64,)
};

}  // namespace edge_vlm
