// Sizes and types of every 64-bit Arm processor.
#pragma once
#include "bytes.h"

namespace edge_vlm {

constexpr size_t kGroup = 2;

constexpr size_t kFloatDepth = 256;
constexpr bool kIsBestInFloats = false;
constexpr bool kMayHaveBf16 = false;
constexpr bool kMayHaveMatrix = false;

}  // namespace edge_vlm
