// Every 64-bit Arm processor (Raspberry Pi 3 and 4), and with dot products those from Armv8.2 on that have no products
// of signed by unsigned bytes (Raspberry Pi 5, Cortex-A75 to X1, Neoverse N1). Only the product of bytes differs.
#if defined(__aarch64__) && !defined(__ARM_FEATURE_MATMUL_INT8)
#include "attention_arm.h"
#include "counts.h"
#include "tile.h"

#include <arm_neon.h>
#include <sys/auxv.h>

#include <algorithm>
#include <cstring>

namespace edge_vlm {
namespace {

constexpr int kWidth = 16;  // columns of a tile

#if defined(__ARM_FEATURE_DOTPROD)

constexpr unsigned long kHwcapDot = 1UL << 20;

bool HasDots() { return getauxval(AT_HWCAP) & kHwcapDot; }

constexpr int kRowsOfBytes = kRows;
using Four = int8x16_t;  // four bytes of a row, four times

Four LoadFour(const int8_t* row) {
  int32_t four;
  std::memcpy(&four, row, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// Four columns, each four deep.
int32x4_t Dot(int32x4_t sum, Four row, int8x16_t column) { return vdotq_s32(sum, row, column); }

// Sixteen columns of four rows.
void Interleave(const int8x16x4_t& rows, int8_t* to) { vst4q_s8(to, rows); }

// Four rows of one of sixteen columns, likewise.
void PlaceFour(const int8_t* four, size_t column, int8_t* to) { std::memcpy(to + 4 * column, four, 4); }

// Four rows of sixteen columns of a panel of heads.h that is `columns` wide, as Dot takes them.
void LoadColumns(const int8_t* panel, size_t, int8x16_t column[4]) {
  for (int c = 0; c < 4; ++c) column[c] = vld1q_s8(panel + 16 * c);
}

#else

bool HasDots() { return true; }

constexpr int kRowsOfBytes = 4;  // products on their way to the sums take registers too
struct Four {
  int8x16_t low, high;  // the first two bytes and the last two, eight times each
};

Four LoadFour(const int8_t* row) {
  int16_t two[2];
  std::memcpy(two, row, 4);
  return {vreinterpretq_s8_s16(vdupq_n_s16(two[0])), vreinterpretq_s8_s16(vdupq_n_s16(two[1]))};
}

// Four columns, the upper two rows of each before the lower two. Two products fit 16 bits: no weight is -128.
int32x4_t Dot(int32x4_t sum, Four row, int8x16_t column) {
  int16x8_t two = vmull_s8(vget_low_s8(row.low), vget_low_s8(column));
  return vpadalq_s16(sum, vmlal_high_s8(two, row.high, column));
}

void Interleave(const int8x16x4_t& rows, int8_t* to) {
  int8x16_t upper[2] = {vzip1q_s8(rows.val[0], rows.val[1]), vzip2q_s8(rows.val[0], rows.val[1])};
  int8x16_t lower[2] = {vzip1q_s8(rows.val[2], rows.val[3]), vzip2q_s8(rows.val[2], rows.val[3])};
  for (int i = 0; i < 2; ++i, to += 32) {
    vst1q_s8(to, vcombine_s8(vget_low_s8(upper[i]), vget_low_s8(lower[i])));
    vst1q_s8(to + 16, vcombine_s8(vget_high_s8(upper[i]), vget_high_s8(lower[i])));
  }
}

void PlaceFour(const int8_t* four, size_t column, int8_t* to) {
  to += column / 4 * 16 + column % 4 * 2;
  std::memcpy(to, four, 2);
  std::memcpy(to + 8, four + 2, 2);
}

void LoadColumns(const int8_t* panel, size_t columns, int8x16_t column[4]) {
  for (int c = 0; c < 4; ++c) column[c] = vcombine_s8(vld1_s8(panel + 8 * c), vld1_s8(panel + 2 * columns + 8 * c));
}

#endif

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

// Sums of products of bytes with sixteen columns of a panel of heads.h.
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

void TileValues(const Weight* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
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
#endif
