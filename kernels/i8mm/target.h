// Sizes and types of Armv8.6 with I8MM.
#pragma once
#include "bytes.h"

namespace edge_vlm {

constexpr size_t kFloatDepth = 256;
constexpr bool kIsBestInFloats = false;
constexpr bool kMayHaveBf16 = false;
constexpr bool kMayHaveMatrix = false;

}  // namespace edge_vlm
