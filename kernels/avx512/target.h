// Sizes and types of AVX-512 with VNNI.
#pragma once
#include "bytes.h"

namespace edge_vlm {

constexpr size_t kFloatDepth = 512;
constexpr bool kIsBestInFloats = true;
constexpr bool kMayHaveBf16 = true;
constexpr bool kMayHaveMatrix = true;

}  // namespace edge_vlm
