// The inner loops of every product, which each target writes for itself. A panel holds up to kPanel columns of a
// matrix, several rows of them side by side, as one instruction multiplies and adds them. Each target's target.h says
// its own sizes and types:
//   kPanel, kRows      columns of a panel and rows of a tile
//   kHasPairs          whether products of bytes come from Winograd's identity, with sums of pairs to take away
//   kByteShift         the number taken from the bytes of a row, so that they fit the signs that a product wants
//   Row8, Column8      elements of rows and panels of integer layers
//   kPacksAtLoad       whether layers make such panels at load, or from blocks of kDepth8 rows in each product
//   Query, Key, Share, Value, kLargest...  integers of attention; a share is what a query takes of a value: its softmax
//   kGroup             elements of a row that lie side by side in a panel of attention
//   kZeroOfKeys        the stored value of a zero of a key
//   kMixesChannels     whether attention mixes the channels of queries and keys before it rounds them
//   kFloatDepth        rows of a block of columns of float layers
//   kIsBestInFloats    whether measurements found float32 layers and attention quicker than onnxruntime's
//   kMayHaveBf16       whether some processors of the target multiply bf16, so that HasBf16 has to ask
//   kMayHaveMatrix     whether some have matrix tiles (matrix.h), so that HasMatrix has to ask
#pragma once
#include "blocks4.h"
#include "scalar_math.h"
#include "target.h"

#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr int kPaddedRows = 8;  // a number of each row, in a vector
constexpr size_t kUncut = size_t{1} << 40;  // longer than any column

// How a layer cuts a product: a task is some rows times some panels, and a tile is some of a task's rows.
struct Cut {
  size_t rows_per_task, most_panels_per_task, rows_per_tile;
  size_t depth;  // how many rows a block of columns has
};
// A block of columns that a product makes serves many rows; a packed one stays in the second cache beside its rows.
constexpr size_t kMostRows = 43 * kRows;  // the most rows of a tile; just above a power of two
constexpr Cut kCutPacked = {96, 8, kRows, kUncut};
constexpr Cut kCutUnpacked = {kMostRows, 1, kRows, kUncut};  // for weights that the session forbids to copy
constexpr Cut kCut8 = kPacksAtLoad ? kCutPacked : Cut{kMostRows, 1, kMostRows, kDepth8};
// Half-precision layers multiply in float32, unless the model allows bf16: its eight bits miss the gate of fp16
// bundles.
constexpr Cut kCutFloat = {kMostRows, 1, kMostRows, kFloatDepth};
constexpr size_t kFloatGroup = 4;  // floats of a row that lie side by side: rows are [row / kRows][depth / 4][kRows][4]
using FloatColumn = float;  // panel: on x86 [depth][64], on Arm [4 columns][depth][4]

// Whether this processor has the instructions of the functions below.
bool IsSupported();

// A panel of weights int8 (depth, columns), rows `pitch` apart, columns up to 64; zeros fill it up to 64
// columns and to a depth of a multiple of 4.
void Pack8(const int8_t* weights, size_t pitch, size_t depth, size_t columns, Column8* panel);

// Rows `from` to `from` + kBlock4 of such a panel, from weights (64, kBlock4). It leaves out rows behind `depth`, a
// multiple of 4.
void Place8(const int8_t (*weights)[kBlock4], size_t from, size_t depth, Column8* panel);

// A panel of weights (columns, depth), rows `pitch` apart, likewise; zeros fill the depth up to a multiple of 4.
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
// depth a multiple of 4; rows up to kMostRows, rounded up to a multiple of kRows, all of which it reads and writes;
// pitch floats from one row to the next, on average; sums 64 apart.
void TileFloat(const float* a, size_t pitch, const FloatColumn* panel, size_t depth, int rows, float* sums,
               bool accumulate);

// Targets with kMayHaveBf16 have the next four.
// Whether this processor multiplies bf16, two side by side, and does so quicker than floats, as a short timing says: on
// some it is slower. A process measures once. RowToBf16 and PackBf16 also serve matrix tiles; TileBf16 needs HasBf16.
bool HasBf16();

// Like PackHalf; panel [depth / 2][64][2], and zeros fill the depth up to a multiple of 2.
void PackBf16(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, uint16_t* panel);

// Turns `count` numbers of a row into bf16, and writes zeros behind them up to depth.
void RowToBf16(const float* row, size_t count, size_t depth, uint16_t* to);

// sums[r][0 .. 64) = sum over k of a[r][k] * panel[k][0 .. 64)
// depth a multiple of 2; rows 1 .. kRows; sums 64 apart.
void TileBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, int rows, float* sums);

// scores[r][0 .. 64) = sum over k of a[r][k] * panel[k][0 .. 64)
// a: queries, depth elements each, depth a multiple of 4; panel: keys [depth / kGroup][64][kGroup]; rows 1 .. kRows.
void TileScores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores, size_t pitch);

// shares[r][i] = kLargestShare * 2^((scores[r][i] - highest[r]) * steps[r]), rounded, of the first `count` scores of a
// row. Rows of scores and shares are `pitch` apart. It reads and writes them up to the next multiple of 64, and maybe
// all kRows of them; scores behind `count` must be INT32_MIN. `sums` gets the sum of each row's shares.
void SoftmaxRows(const int32_t* scores, size_t pitch, int rows, size_t count, const float* steps, Share* shares,
                 int32_t* highest, float* sums);

// out[r][0 .. columns) += scale[r] * sum over k of a[r][k] * panel[k][0 .. columns)
// a: shares, `pitch` apart; depth a multiple of 64; panel: values [depth / kGroup][columns][kGroup]; columns 16, 32, 48
// or 64; rows 1 .. kRows.
void TileValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
                const float* scale, float* out, size_t out_pitch);

}  // namespace edge_vlm
