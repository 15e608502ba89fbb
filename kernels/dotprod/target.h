// Sizes and types of Armv8.2 with dot products. Products of bytes have two signed sides.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr int kPanel = 64;  // columns of a packed panel
constexpr int kRows = 6;    // rows of a tile: its sums, a few columns and a row element fill the vector registers

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
constexpr size_t kGroup = 4;
constexpr int32_t kZeroOfKeys = 0;
constexpr bool kMixesChannels = true;
constexpr float kLargestQuery = 127, kLargestKey = 127, kLargestShare = 127, kLargestValue = 127;

constexpr size_t kFloatDepth = 256;
constexpr bool kIsBestInFloats = false;
constexpr bool kMayHaveBf16 = false;
constexpr bool kMayHaveMatrix = false;

}  // namespace edge_vlm
