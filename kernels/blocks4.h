// Weights of four bits in blocks along the input, as onnxruntime's MatMulNBits lays them out, and the bytes that the
// tiles multiply in their place: columns with one step each, so that a product has whole numbers from end to end.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr size_t kBlock4 = 32;  // weights that share a step and a zero

struct Blocks4 {
  const uint8_t* values;  // (out, num_blocks, kBlock4 / 2), the first of two neighbours in the low half of a byte
  const float* steps;     // (out, num_blocks)
  const uint8_t* zeros;   // (out, ceil(num_blocks / 2)), two in a byte as in values
  size_t num_blocks;

  // The step of a column of bytes: the largest weight its blocks could hold is 127.
  float StepOf(size_t column) const;
  // Bytes of a block of `count` columns from `first` on, in steps of a column.
  void Unpack(size_t first, size_t count, size_t block, const float* column_steps, int8_t (*to)[kBlock4]) const;
};

}  // namespace edge_vlm
