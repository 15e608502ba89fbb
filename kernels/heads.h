// Queries, keys and values of one head, and the integers with steps that they become.
#pragma once
#include "run.h"
#include "tile.h"

namespace edge_vlm {

constexpr size_t kMaxHeadDim = 256;
constexpr size_t kKeysPerBlock = 128;  // keys that share a step, and stay in the first cache while queries pass

// One part of a packed matrix: rows of one head, `pitch` floats apart.
struct Head {
  const float* rows;
  size_t num_rows, pitch, width;         // width even, at most kMaxHeadDim
  const float *cosines, *sines;          // (num_rows, width / 2); values do not use them
};

// Fetches a row that is needed soon: rows of a packed matrix lie too far apart for the processor to foresee it.
inline void PrefetchRow(const float* x, size_t pitch, size_t width) {
  constexpr size_t kRowsAhead = 8;
  for (size_t i = 0; i < width; i += kLine) __builtin_prefetch(x + kRowsAhead * pitch + i);
}

// Rotates one row by its angles (rotary position embedding, halves as pairs) into `to`, `width` numbers.
void Rotate(const Head& head, size_t row, float* to);

// Writes a row as tiles want it: depth elements, zeros behind width. Returns the step of the row.
float PackQuery(const Head& head, size_t row, size_t depth, Query* query);

// Writes keys [row / 64][depth / kGroup][64][kGroup], and a step for each block. It takes the mean of the keys away:
// the mean adds the same to all scores of a query, so the softmax does not see it, but it can be most of what is
// rounded.
void PackKeys(const Run& run, const Head& head, size_t depth, Key* keys, float* steps);

// Writes values [column / 64][row / kGroup][columns][kGroup], rows rounded up to 64 and columns to 16, and column
// steps.
void PackValues(const Head& head, Value* values, float* steps);

}  // namespace edge_vlm
