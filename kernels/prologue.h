// The left side of a product: rows as the tiles multiply them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge_vlm {

// How rows become the left side: optionally normalised, optionally multiplied per channel.
struct Prologue {
  const float* norm_weight = nullptr;  // (in,), null for no norm
  const float* norm_bias = nullptr;
  float epsilon = 1e-6f;  // of the norm
  const float* factors = nullptr;  // (in,)
};

// What makes bytes of a row numbers again: x = step * (q - zero).
struct Rounded {
  float step, zero;
};

// Applies the prologue to one row of `in` numbers and returns the result in `row`, or x itself where it has nothing to
// do.
const float* Prepare(const float* x, size_t in, const Prologue& before, float* row);

// Applies the prologue to one row of `in` numbers and rounds it: q in 0 .. 255, less kByteShift, and the zero likewise;
// bytes from `in` to `depth` are 0. `row` has room for `in` numbers.
Rounded Quantise(const float* x, size_t in, size_t depth, const Prologue& before, float* row, uint8_t* q);

}  // namespace edge_vlm
