// The left side of a product: rows as the tiles multiply them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge_vlm {

// How rows become the left side: optionally normalised, optionally multiplied per channel.
struct Prologue {
  const float* norm_weight = nullptr;  // (in,), null for no norm
  const float* norm_bias = nullptr;
  const float* factors = nullptr;  // (in,)
};

// What makes bytes of a row numbers again: x = step * (q - zero).
struct Rounded {
  float step, zero;
};

// One row of `in` numbers as the prologue wants it, in `row`; returns x itself where it wants nothing.
const float* Prepare(const float* x, size_t in, const Prologue& before, float* row);

// One row of `in` numbers as the prologue wants it, rounded: q in 0 .. 255, less kByteShift, the zero too; bytes from `in` to
// `depth` are 0. `row` is room for `in` numbers.
Rounded Quantise(const float* x, size_t in, size_t depth, const Prologue& before, float* row, uint8_t* q);

}  // namespace edge_vlm
