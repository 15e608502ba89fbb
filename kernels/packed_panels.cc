// Panels of processors that multiply bytes and bf16 as they are: several rows of a column side by side.
#include "tile.h"

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <cstring>

namespace edge_vlm {

void Pack8(const int8_t* weights, size_t pitch, size_t depth, size_t columns, Column8* panel) {
  std::memset(panel, 0, RoundUp(depth, 4) * kPanel);
  for (size_t k = 0; k < depth; ++k)
    for (size_t c = 0; c < columns; ++c) panel[k / 4 * kPanel * 4 + c * 4 + k % 4] = weights[k * pitch + c];
}

void PackHalf(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, HalfColumn* panel) {
  std::memset(panel, 0, RoundUp(depth, 2) * kPanel * sizeof(HalfColumn));
  for (size_t c = 0; c < columns; ++c)
    for (size_t k = 0; k < depth; ++k)
      panel[k / 2 * kPanel * 2 + c * 2 + k % 2] = ToBf16(HalfToFloat(weights[c * pitch + k]));
}

}  // namespace edge_vlm
#endif
