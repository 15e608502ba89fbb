// Products of two signed bytes: dot products, NEON.
#pragma once
#include "panel.h"

namespace edge_vlm {

constexpr bool kHasPairs = false;
constexpr int kByteShift = 128;
using Row8 = int8_t;
using Column8 = int8_t;  // panel: [16 columns][depth / 4][16 x 4 bytes]
constexpr bool kPacksAtLoad = false;
constexpr size_t kDepth8 = 1024;  // 16 columns take half of a first cache

using Query = int8_t;
using Key = int8_t;
using Share = int8_t;
using Value = int8_t;
constexpr int32_t kZeroOfKeys = 0;
constexpr bool kMixesChannels = true;
constexpr float kLargestQuery = 127, kLargestKey = 127, kLargestShare = 127, kLargestValue = 127;

}  // namespace edge_vlm
