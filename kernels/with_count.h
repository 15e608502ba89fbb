// Tiles are templates by their number of rows, so that sums stay in registers; this chooses among them.
#pragma once
#include <type_traits>

namespace edge_vlm {

// Calls tile(n) with n = min(count, kMost) as a constant; count is 1 or more.
template <int kMost, class Tile>
void WithCount(int count, const Tile& tile) {
  if constexpr (kMost > 1)
    if (count < kMost) return WithCount<kMost - 1>(count, tile);
  tile(std::integral_constant<int, kMost>{});
}

}  // namespace edge_vlm
