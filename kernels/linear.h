// A linear layer: int8 weights with a step a column, or fp16 ones.
#pragma once
#include "pool.h"

#include <cstdint>

namespace edge_vlm {

// Inputs of an int8 layer whose sums fit 32 bits on every processor: those of AVX2 (tile.h) are the largest, of products
// up to (255 + 127)^2 for two inputs.
constexpr size_t kMostInputs8 = 29432;

// How rows become the left side of a product: optionally normalised, optionally multiplied per channel.
struct Prologue {
  const float* norm_weight = nullptr;  // (in,), null for no norm
  const float* norm_bias = nullptr;
  const float* factors = nullptr;  // (in,)
};

// What happens to a product before it is stored.
struct Epilogue {
  bool has_gelu = false;  // the tanh form
  const float* residual = nullptr;  // (rows, out)
};

class Linear {
 public:
  // values (in, out) int8 from -127 on, in up to kMostInputs8; steps (out,), sums_and_bias (2, out): column sums times
  // steps, bias. Values outlive the layer: some processors read them where they lie.
  static Linear Int8(const int8_t* values, const float* steps, const float* sums_and_bias, size_t in, size_t out);
  // values (out, in) fp16, bias (out,).
  static Linear Half(const uint16_t* values, const float* bias, size_t in, size_t out);

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
  // The left side of a product: rows of Row8 or of floats, and what makes bytes of a row numbers again.
  struct Left {
    uint8_t* rows;
    float *steps, *zeros;
    int32_t* pairs;
  };

  Linear(const void* values, size_t in, size_t out, size_t depth, bool is_int8);
  void PackAll();
  size_t panel_bytes() const;
  // Columns of one panel, `depth` rows of them from row `from` on, in the order that tiles read.
  void Pack(size_t panel, size_t from, size_t depth, void* to) const;
  void Multiply(const Left& left, size_t first_row, size_t num_rows, size_t panel, void* block, const Epilogue& after,
                float* result) const;

  bool is_int8_ = false;
  // depth: in, rounded up to what a tile takes; pitch: from one row of the left side to the next
  size_t in_ = 0, out_ = 0, depth_ = 0, pitch_ = 0, num_panels_ = 0;
  const void* values_ = nullptr;
  uint8_t* panels_ = nullptr;  // Column8, panel by panel; null where they are made in use
  float* columns_ = nullptr;  // steps, sums, bias, each (panels * 64,)
  int32_t* pairs_ = nullptr;  // sums of products of neighbours in a column, (panels * 64,)
};

}  // namespace edge_vlm
