// SoftmaxRows (tile.h) on processors that take a row at a time.
#pragma once
#include "tile.h"

namespace edge_vlm {

// highest_of(scores, count): the highest of `count` scores and those up to the next multiple of 64.
// softmax(scores, count, step, highest, shares): one row as in SoftmaxRows; returns the sum of its shares.
template <class Highest, class Softmax>
void SoftmaxByRow(const Highest& highest_of, const Softmax& softmax, const int32_t* scores, size_t pitch, int rows,
                  size_t count, const float* steps, Share* shares, int32_t* highest, float* sums) {
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = scores + r * pitch;
    highest[r] = highest_of(row, count);
    sums[r] = softmax(row, count, steps[r], highest[r], shares + r * pitch);
  }
}

}  // namespace edge_vlm
