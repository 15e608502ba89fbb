// From scores to the softmax's weights on processors that take a row at a time; WeighRows (tile.h) is made of these two.
#pragma once
#include "tile.h"

namespace edge_vlm {

// Of `count` scores and those up to the next multiple of 64.
int32_t Highest(const int32_t* scores, size_t count);

// One row as in WeighRows; returns the sum of its weights.
float WeighRow(const int32_t* scores, size_t count, float step, int32_t highest, Weight* weights);

}  // namespace edge_vlm
