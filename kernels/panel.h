// Sizes that all targets share.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr int kPanel = 64;  // columns of a packed panel
constexpr int kRows = 6;    // rows of a tile: its sums, a few columns and a row element fill the vector registers

}  // namespace edge_vlm
