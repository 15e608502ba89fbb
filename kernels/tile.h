// The inner loops everything is made of, written once per processor family. A panel holds up to 64 columns of a matrix,
// several rows of them side by side: what one instruction multiplies and adds.
#pragma once
#include "blocks4.h"
#include "numbers.h"

#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr int kPanel = 64;  // columns of a packed panel
constexpr int kRows = 6;    // rows of a tile: its sums, a few columns and a row element fill the vector registers
constexpr int kPaddedRows = 8;  // a number of each row, in a vector
constexpr size_t kUncut = size_t{1} << 40;  // longer than any column

#if defined(__AVX2__) && !defined(__AVX512VNNI__)
// No instruction multiplies four bytes at once without cutting sums off, so bytes become 16 bits wide, and twice as many
// products as multiplications come from Winograd's identity: the sum of x0 y0 + x1 y1 is that of (x0 + y1) (x1 + y0)
// less those of x0 x1, the same for all columns, and y0 y1, the same for all rows (A New Algorithm for Inner Product,
// IEEE Transactions on Computers C-17, 1968). Whole numbers, so nothing is lost.
constexpr bool kHasPairs = true;
constexpr int kByteShift = 0;  // what is taken from bytes of a row, so that they fit the signs a product wants
using Row8 = int16_t;     // four of a row lie as 0, 2, 1, 3
using Column8 = int16_t;  // panel: [16 columns][depth / 4][two vectors of rows 0 and 2, two of rows 1 and 3]
// Wide panels would take twice the memory of the weights: a block of them is made where it is used, and soon reused.
constexpr bool kPacksAtLoad = false;
constexpr size_t kDepth8 = 256;
// Attention multiplies 16-bit integers. Sums stay within 32 bits: of kMaxHeadDim channels, and of weights and values 64.
using Query = int16_t;
using Key = int16_t;
using Weight = int16_t;
using Value = int16_t;
constexpr size_t kGroup = 2;  // elements of a row that lie side by side in a panel
constexpr int32_t kZeroOfKeys = 0;
constexpr bool kMixesChannels = false;  // twelve bits hold a loud channel and the others
constexpr float kLargestQuery = 2000, kLargestKey = 4000, kLargestWeight = 16384, kLargestValue = 2000;
#elif defined(__aarch64__) && !defined(__ARM_FEATURE_MATMUL_INT8)
// Products of bytes have two signed sides.
constexpr bool kHasPairs = false;
constexpr int kByteShift = 128;
using Row8 = int8_t;
using Column8 = int8_t;  // panel: [16 columns][depth / 4][16 x 4 bytes]
constexpr bool kPacksAtLoad = false;
constexpr size_t kDepth8 = 1024;  // 16 columns take half of a first cache
using Query = int8_t;
using Key = int8_t;
using Weight = int8_t;
using Value = int8_t;
#if defined(__ARM_FEATURE_DOTPROD)
constexpr size_t kGroup = 4;
#else
constexpr size_t kGroup = 2;
#endif
constexpr int32_t kZeroOfKeys = 0;
constexpr bool kMixesChannels = true;
constexpr float kLargestQuery = 127, kLargestKey = 127, kLargestWeight = 127, kLargestValue = 127;
#else
constexpr bool kHasPairs = false;
constexpr int kByteShift = 0;
using Row8 = uint8_t;
using Column8 = int8_t;  // panel: [depth / 4][64][4]
constexpr bool kPacksAtLoad = true;
constexpr size_t kDepth8 = kUncut;
// Attention multiplies bytes.
using Query = int8_t;
using Key = uint8_t;
using Weight = uint8_t;
using Value = int8_t;
constexpr size_t kGroup = 4;
constexpr int32_t kZeroOfKeys = 128;  // what a zero of a key is stored as: one side has to be unsigned
constexpr bool kMixesChannels = true;
constexpr float kLargestQuery = 127, kLargestKey = 127, kLargestWeight = 255, kLargestValue = 127;
#endif

// How a product is cut: tasks are rows times panels, and of a task's rows so many are one tile.
struct Cut {
  size_t rows_per_task, most_panels_per_task, rows_per_tile;
  size_t depth;  // of a block of columns
};
// Blocks of columns that are made where they are used serve many rows; packed ones stay in the second cache beside theirs.
constexpr size_t kMostRows = 43 * kRows;  // of a tile; just above a power of two
constexpr Cut kCutPacked = {96, 8, kRows, kUncut};
constexpr Cut kCutUnpacked = {kMostRows, 1, kRows, kUncut};  // of what may not be copied
constexpr Cut kCut8 = kPacksAtLoad ? kCutPacked : Cut{kMostRows, 1, kMostRows, kDepth8};
// Half-precision layers multiply in float32, unless the model allows bf16: its eight bits miss the gate of fp16 bundles.
#if defined(__AVX512VNNI__)
constexpr Cut kCutFloat = {kMostRows, 1, kMostRows, 512};
constexpr bool kIsBestInFloats = true;  // whether float32 layers and attention were measured to be quicker than onnxruntime's
#else
constexpr Cut kCutFloat = {kMostRows, 1, kMostRows, 256};
constexpr bool kIsBestInFloats = false;
#endif
constexpr size_t kFloatGroup = 4;  // floats of a row that lie side by side: rows are [row / kRows][depth / 4][kRows][4]
using FloatColumn = float;  // panel: on x86 [depth][64], on Arm [4 columns][depth][4]

// Whether this processor has the instructions of the functions below.
bool IsSupported();

// A panel of weights int8 (depth, columns), rows `pitch` apart, columns up to 64; what is missing to 64 and to a
// multiple of 4 is zero.
void Pack8(const int8_t* weights, size_t pitch, size_t depth, size_t columns, Column8* panel);

// Rows `from` to `from` + kBlock4 of such a panel, of weights (64, kBlock4); those behind `depth`, a multiple of 4, are left
// out.
void Place8(const int8_t (*weights)[kBlock4], size_t from, size_t depth, Column8* panel);

// A panel of weights (columns, depth), rows `pitch` apart, likewise; depth is filled up to a multiple of 4.
void PackHalf(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, FloatColumn* panel);
void PackFloat(const float* weights, size_t pitch, size_t depth, size_t columns, FloatColumn* panel);

// Where kHasPairs: bytes as TileU8S8 wants them, depth a multiple of 4; returns the sum of x0 x1 + x2 x3 + ...
int32_t WidenRow8(const uint8_t* bytes, size_t depth, Row8* row);

// sums[r][0 .. 64) (+)= sum over k of a[r][k] * panel[k][0 .. 64), plus the sums of pairs where kHasPairs
// a: rows of bytes, or where kHasPairs as WidenRow8 gives them, `pitch` apart; depth a multiple of 4; rows 1 ..
// kCut8.rows_per_tile; sums 64 apart.
void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums,
              bool accumulate);

// sums[r][0 .. 64) (+)= sum over k of a[r][k] * panel[k][0 .. 64)
// depth a multiple of 4; rows up to kMostRows, rounded up to a multiple of kRows: all of them are read and written; pitch
// floats from one row to the next, on average; sums 64 apart.
void TileFloat(const float* a, size_t pitch, const FloatColumn* panel, size_t depth, int rows, float* sums,
               bool accumulate);

// Whether this processor multiplies bf16, two side by side. Where it does not, the next three are not called.
bool HasBf16();

// Like PackHalf; panel [depth / 2][64][2], depth filled up to a multiple of 2.
void PackBf16(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, uint16_t* panel);

// `count` numbers of a row, zeros behind them up to depth.
void RowToBf16(const float* row, size_t count, size_t depth, uint16_t* to);

// sums[r][0 .. 64) = sum over k of a[r][k] * panel[k][0 .. 64)
// depth a multiple of 2; rows 1 .. kRows; sums 64 apart.
void TileBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, int rows, float* sums);

// scores[r][0 .. 64) = sum over k of a[r][k] * panel[k][0 .. 64)
// a: queries, depth elements each, depth a multiple of 4; panel: keys [depth / kGroup][64][kGroup]; rows 1 .. kRows.
void TileScores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores, size_t pitch);

// weights[r][i] = kLargestWeight * 2^((scores[r][i] - highest[r]) * steps[r]), rounded, of the first `count` scores of a
// row. Rows of scores and weights are `pitch` apart and are read and written up to the next multiple of 64, and all kRows
// of them may be; scores behind `count` are the lowest there are. Sums are of the weights.
void WeighRows(const int32_t* scores, size_t pitch, int rows, size_t count, const float* steps, Weight* weights,
               int32_t* highest, float* sums);

// out[r][0 .. columns) += scale[r] * sum over k of a[r][k] * panel[k][0 .. columns)
// a: weights, `pitch` apart; depth a multiple of 64; panel: values [depth / kGroup][columns][kGroup]; columns 16, 32, 48 or
// 64; rows 1 .. kRows.
void TileValues(const Weight* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
                const float* scale, float* out, size_t out_pitch);

}  // namespace edge_vlm
