// Products of an unsigned byte and a signed one: AVX-512 with VNNI, I8MM.
#pragma once
#include "panel.h"

namespace edge_vlm {

constexpr bool kHasPairs = false;
constexpr int kByteShift = 0;
using Row8 = uint8_t;
using Column8 = int8_t;  // panel: [depth / 4][64][4]
constexpr bool kPacksAtLoad = true;
constexpr size_t kDepth8 = size_t{1} << 40;  // all of it

// Attention multiplies bytes.
using Query = int8_t;
using Key = uint8_t;
using Share = uint8_t;
using Value = int8_t;
constexpr size_t kGroup = 4;
constexpr int32_t kZeroOfKeys = 128;  // one side has to be unsigned
constexpr bool kMixesChannels = true;
constexpr float kLargestQuery = 127, kLargestKey = 127, kLargestShare = 255, kLargestValue = 127;

}  // namespace edge_vlm
