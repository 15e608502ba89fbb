// Every 64-bit Arm processor (Raspberry Pi 3 and 4), and with dot products those from Armv8.2 on that have no products
// of signed by unsigned bytes (Raspberry Pi 5, Cortex-A75 to X1, Neoverse N1). Only the product of bytes differs.
#include "attention_sums.h"
#include "dot.h"
#include "with_count.h"
#include "tile.h"

#include <arm_neon.h>

#include <algorithm>
#include <cstring>

namespace edge_vlm {
namespace {

constexpr int kWidth = 16;  // columns of a tile

template <int kCount>
void DotU8S8(const int8_t* a, size_t pitch, const int8_t* panel, size_t depth, int32_t* sums, bool accumulate) {
  int32x4_t sum[kCount][4];
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) sum[r][c] = accumulate ? vld1q_s32(sums + kPanel * r + 4 * c) : vdupq_n_s32(0);
  for (size_t k = 0; k < depth; k += 4, panel += 4 * kWidth) {
    int8x16_t column[4];
    for (int c = 0; c < 4; ++c) column[c] = vld1q_s8(panel + 16 * c);
    for (int r = 0; r < kCount; ++r) {
      Four row = LoadFour(a + r * pitch + k);
      for (int c = 0; c < 4; ++c) sum[r][c] = Dot(sum[r][c], row, column[c]);
    }
  }
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) vst1q_s32(sums + kPanel * r + 4 * c, sum[r][c]);
}

// Sums of products of bytes with sixteen columns of a panel that heads.h packs.
template <int kCount>
struct Bytes {
  int32x4_t sum[kCount][4];

  void Multiply(const int8_t* a, size_t pitch, const int8_t* panel, size_t columns, size_t depth) {
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < 4; ++c) sum[r][c] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += 4, panel += 4 * columns) {
      int8x16_t column[4];
      LoadColumns(panel, columns, column);
      for (int r = 0; r < kCount; ++r) {
        Four row = LoadFour(a + r * pitch + k);
        for (int c = 0; c < 4; ++c) sum[r][c] = Dot(sum[r][c], row, column[c]);
      }
    }
  }
};

}  // namespace

bool IsSupported() { return HasDots(); }

void Pack8(const int8_t* weights, size_t pitch, size_t depth, size_t columns, Column8* panel) {
  size_t padded = RoundUp(depth, 4);
  int8_t edge[4][kPanel];
  for (size_t k = 0; k < padded; k += 4, weights += 4 * pitch) {
    const int8_t* from = weights;
    size_t step = pitch;
    if (k + 4 > depth || columns < kPanel) {
      std::memset(edge, 0, sizeof(edge));
      for (size_t i = 0; i < std::min<size_t>(4, depth - k); ++i) std::memcpy(edge[i], weights + i * pitch, columns);
      from = edge[0], step = kPanel;
    }
    for (size_t c0 = 0; c0 < kPanel; c0 += kWidth) {
      int8x16x4_t rows;
      for (size_t i = 0; i < 4; ++i) rows.val[i] = vld1q_s8(from + i * step + c0);
      Interleave(rows, panel + c0 * padded + k * kWidth);
    }
  }
}

void Place8(const int8_t (*weights)[kBlock4], size_t from, size_t depth, Column8* panel) {
  size_t count = std::min(kBlock4, depth - from);
  for (size_t c = 0; c < kPanel; ++c) {
    Column8* to = panel + c / kWidth * kWidth * depth + from * kWidth;
    for (size_t k = 0; k < count; k += 4, to += 4 * kWidth) PlaceFour(weights[c] + k, c % kWidth, to);
  }
}

// Columns go slowest: sixteen of them, kDepth8 deep, stay in the first cache while all rows pass.
void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums,
              bool accumulate) {
  for (int c0 = 0; c0 < kPanel; c0 += kWidth, panel += kWidth * depth, sums += kWidth)
    for (int r = 0; r < rows; r += kRowsOfBytes)
      WithCount<kRowsOfBytes>(rows - r, [&](auto count) {
        DotU8S8<count>(a + r * pitch, pitch, panel, depth, sums + r * kPanel, accumulate);
      });
}

void TileScores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores, size_t pitch) {
  for (int r = 0; r < rows; r += kRowsOfBytes)
    WithCount<kRowsOfBytes>(rows - r, [&](auto count) {
      for (int c0 = 0; c0 < kPanel; c0 += kWidth) {
        Bytes<count> bytes;
        bytes.Multiply(a + r * depth, depth, panel + kGroup * c0, kPanel, depth);
        Store(bytes.sum, scores + r * pitch + c0, pitch);
      }
    });
}

void TileValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
                const float* scale, float* out, size_t out_pitch) {
  for (int r = 0; r < rows; r += kRowsOfBytes)
    WithCount<kRowsOfBytes>(rows - r, [&](auto count) {
      for (int c0 = 0; c0 < columns; c0 += kWidth) {
        Bytes<count> bytes;
        bytes.Multiply(a + r * pitch, pitch, panel + kGroup * c0, columns, depth);
        AddValues(bytes.sum, scale + r, out + r * out_pitch + c0, out_pitch);
      }
    });
}

}  // namespace edge_vlm
