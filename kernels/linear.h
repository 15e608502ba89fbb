// A linear layer whose weights are packed once: int8 with a step a column, or bf16.
#pragma once
#include "pool.h"

#include <cstdint>

namespace edge_vlm {

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
  // values (in, out) int8, steps (out,), sums_and_bias (2, out): column sums times steps, bias.
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
  void Multiply(const void* left, const float* row_steps, const float* row_zeros, size_t first_row, size_t num_rows,
                size_t first_panel, size_t num_panels, const Epilogue& after, float* result) const;

  bool is_int8_ = false;
  size_t in_ = 0, out_ = 0, depth_ = 0, num_panels_ = 0;  // depth: in, rounded up to what a tile takes
  void* panels_ = nullptr;    // int8 [panel][depth / 4][64][4] or bf16 [panel][depth / 2][64][2]
  float* columns_ = nullptr;  // steps, sums, bias, each (panels * 64,)
};

}  // namespace edge_vlm
