#include "weights_by_row.h"

#if !defined(__AVX512VNNI__)
namespace edge_vlm {

void WeighRows(const int32_t* scores, size_t pitch, int rows, size_t count, const float* steps, Weight* weights,
               int32_t* highest, float* sums) {
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = scores + r * pitch;
    highest[r] = Highest(row, count);
    sums[r] = WeighRow(row, count, steps[r], highest[r], weights + r * pitch);
  }
}

}  // namespace edge_vlm
#endif
