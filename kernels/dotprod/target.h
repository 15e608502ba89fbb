// Sizes and types of Armv8.2 with dot products.
#pragma once
#include "bytes.h"

namespace edge_vlm {

constexpr size_t kGroup = 4;

constexpr size_t kFloatDepth = 256;
constexpr bool kIsBestInFloats = false;
constexpr bool kMayHaveBf16 = false;
constexpr bool kMayHaveMatrix = false;

}  // namespace edge_vlm
