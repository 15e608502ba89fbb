// Panels of processors that multiply bytes as they are: four rows of a column side by side.
#include "tile.h"

#include <algorithm>
#include <cstring>

namespace edge_vlm {

void Pack8(const int8_t* weights, size_t pitch, size_t depth, size_t columns, Column8* panel) {
  size_t whole = columns == kPanel ? depth / 4 * 4 : 0;
  for (size_t k = 0; k < whole; k += 4) {
    const int8_t* __restrict rows = weights + k * pitch;
    int8_t* __restrict to = panel + k * kPanel;
    for (size_t c = 0; c < kPanel; ++c)
      for (size_t i = 0; i < 4; ++i) to[4 * c + i] = rows[i * pitch + c];
  }
  std::memset(panel + whole * kPanel, 0, (RoundUp(depth, 4) - whole) * kPanel);
  for (size_t k = whole; k < depth; ++k)
    for (size_t c = 0; c < columns; ++c) panel[k / 4 * kPanel * 4 + c * 4 + k % 4] = weights[k * pitch + c];
}

void Place8(const int8_t (*weights)[kBlock4], size_t from, size_t depth, Column8* panel) {
  size_t count = std::min(kBlock4, depth - from);
  for (size_t k = 0; k < count; k += 4)
    for (size_t c = 0; c < kPanel; ++c) std::memcpy(panel + (from + k) * kPanel + c * 4, weights[c] + k, 4);
}

}  // namespace edge_vlm
