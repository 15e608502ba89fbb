// Sizes and types of AVX2. No instruction multiplies four bytes at once without cutting sums off, so bytes become 16
// bits wide, and twice as many products as multiplications come from Winograd's identity: the sum of x0 y0 + x1 y1 is
// that of (x0 + y1) (x1 + y0) less the sums of x0 x1, the same for all columns, and y0 y1, the same for all rows (A New
// Algorithm for Inner Product, IEEE Transactions on Computers C-17, 1968). All are whole numbers, so nothing is lost.
#pragma once
#include "panel.h"

namespace edge_vlm {

constexpr bool kHasPairs = true;
constexpr int kByteShift = 0;
using Row8 = int16_t;     // four of a row lie as 0, 2, 1, 3
using Column8 = int16_t;  // panel: [16 columns][depth / 4][two vectors of rows 0 and 2, two of rows 1 and 3]
// Wide panels would take twice the memory of the weights, so each product makes a block of them and soon reuses it.
constexpr bool kPacksAtLoad = false;
constexpr size_t kDepth8 = 256;

// Attention multiplies 16-bit integers. Sums stay within 32 bits: those of kMaxHeadDim channels, and of 64 shares and
// values.
using Query = int16_t;
using Key = int16_t;
using Share = int16_t;
using Value = int16_t;
constexpr size_t kGroup = 2;
constexpr int32_t kZeroOfKeys = 0;
constexpr bool kMixesChannels = false;  // twelve bits hold a loud channel and the others
constexpr float kLargestQuery = 2000, kLargestKey = 4000, kLargestShare = 16384, kLargestValue = 2000;

constexpr size_t kFloatDepth = 256;
constexpr bool kIsBestInFloats = false;
constexpr bool kMayHaveBf16 = false;
constexpr bool kMayHaveMatrix = false;

}  // namespace edge_vlm
