// Turns sums of products into a layer's numbers, and applies what follows the layer.
#pragma once
#include "scalar_math.h"
#include "prologue.h"
#include "tile.h"

#include <type_traits>

namespace edge_vlm {

// What a layer does to a product before it stores it: it applies an activation, or adds a residual.
enum class After { kNothing, kResidual, kGeluTanh, kGelu, kQuickGelu };

struct Epilogue {
  After after = After::kNothing;
  const float* residual = nullptr;  // (rows, out), where it is added
};

// Calls f with `after` as a constant.
template <class F>
void ByAfter(After after, const F& f) {
  switch (after) {
    case After::kNothing:
      return f(std::integral_constant<After, After::kNothing>{});
    case After::kResidual:
      return f(std::integral_constant<After, After::kResidual>{});
    case After::kGeluTanh:
      return f(std::integral_constant<After, After::kGeluTanh>{});
    case After::kGelu:
      return f(std::integral_constant<After, After::kGelu>{});
    case After::kQuickGelu:
      return f(std::integral_constant<After, After::kQuickGelu>{});
  }
}

// Numbers of the columns of a panel, kPanel each. Layers of floats have a bias only.
struct Columns {
  const float *steps, *sums, *bias;
  const int32_t* pairs;  // where kHasPairs
};

// Turns kColumns columns of one row from int32 or float sums into floats. `pairs` is the row's, where kHasPairs.
template <int kColumns, After kAfter, class Sum>
[[gnu::always_inline]] inline void Finish(const Sum* __restrict sums, const Columns& columns, const Rounded& row,
                                          int32_t pairs, const float* __restrict residual, float* __restrict to) {
  for (int c = 0; c < kColumns; ++c) {
    float value;
    if constexpr (std::is_same_v<Sum, int32_t>) {
      int32_t whole = kHasPairs ? sums[c] - pairs - columns.pairs[c] : sums[c];
      value = (static_cast<float>(whole) * columns.steps[c] - row.zero * columns.sums[c]) * row.step + columns.bias[c];
    } else {
      value = sums[c] + columns.bias[c];
    }
    if constexpr (kAfter == After::kGeluTanh)
      value = std::is_same_v<Sum, int32_t> ? GeluTanhForBytes(value) : GeluTanh(value);
    if constexpr (kAfter == After::kGelu) value = Gelu(value);
    if constexpr (kAfter == After::kQuickGelu) value = QuickGelu(value);
    to[c] = kAfter == After::kResidual ? value + residual[c] : value;
  }
}

}  // namespace edge_vlm
