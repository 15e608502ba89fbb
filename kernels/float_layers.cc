// Layers of floats: each product turns fp16 weights into float32, and products are float32. float_panels.h of x86/ and
// arm/ has the order of a panel and the tile.
#include "float_panels.h"

namespace edge_vlm {

void PackHalf(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, FloatColumn* panel) {
  PackFloats(weights, pitch, depth, columns, panel);
}

void PackFloat(const float* weights, size_t pitch, size_t depth, size_t columns, FloatColumn* panel) {
  PackFloats(weights, pitch, depth, columns, panel);
}

// Columns go slowest: kFloatWidth of them, kFloatDepth deep, stay near the first cache while all rows pass.
void TileFloat(const float* a, size_t pitch, const FloatColumn* panel, size_t depth, int rows, float* sums,
               bool accumulate) {
  for (int first = 0; first < kPanel; first += kFloatWidth)
    for (int r = 0; r < rows; r += kRows)
      MultiplyFloats(a + r * pitch, panel, first, depth, sums + r * kPanel + first, accumulate);
}

}  // namespace edge_vlm
