// The inner loops everything is made of, written once per processor family. A panel holds up to 64 columns of a matrix,
// several rows of them side by side: four bytes or two bf16 of a column are what one instruction multiplies and adds.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr int kPanel = 64;  // columns of a packed panel
constexpr int kRows = 6;    // rows of a tile: 6 x 4 sums, 4 columns and 1 row element fill 32 vector registers

// Whether this processor has the instructions of the functions below.
bool IsSupported();

// sums[r][0 .. 64) = sum over k of a[r][k] * panel[k][0 .. 64)
// a: rows of bytes, `pitch` apart, depth a multiple of 4; panel: [depth / 4][64][4]; rows 1 .. 6; sums 64 apart.
void TileU8S8(const uint8_t* a, size_t pitch, const int8_t* panel, size_t depth, int rows, int32_t* sums);

// sums[r][0 .. columns) (+)= sum over k of a[r][k] * panel[k][0 .. columns)
// a: rows of bf16, `pitch` elements apart, depth even; panel: [depth / 2][columns][2]; columns 16, 32, 48 or 64.
void TileBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, int rows, int columns, float* sums,
              size_t sums_pitch, bool accumulate);

// weights[i] = bf16(2^(x[i] - high)) for x <= high; returns the sum of the unrounded. count is a multiple of 64.
float Exp2Row(const float* x, size_t count, float high, uint16_t* weights);

}  // namespace edge_vlm
