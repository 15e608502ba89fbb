// Armv8.6 with I8MM: Neoverse V1, N2 and later, Cortex-A710 and X2 and later, Apple M2 and later.
#include "attention_sums.h"
#include "with_count.h"
#include "tile.h"

#include <arm_neon.h>
#include <sys/auxv.h>

namespace edge_vlm {
namespace {

constexpr unsigned long kHwcap2I8mm = 1UL << 13;

int8x16_t Load(const int8_t* from) { return vld1q_s8(from); }
uint8x16_t Load(const uint8_t* from) { return vld1q_u8(from); }

int32x4_t Dot(int32x4_t sum, uint8x16_t row, int8x16_t column) { return vusdotq_s32(sum, row, column); }
int32x4_t Dot(int32x4_t sum, int8x16_t row, uint8x16_t column) { return vusdotq_s32(sum, column, row); }

uint8x16_t FourTimes(const uint8_t* row) {
  uint32_t four;
  std::memcpy(&four, row, 4);
  return vreinterpretq_u8_u32(vdupq_n_u32(four));
}
int8x16_t FourTimes(const int8_t* row) { return vreinterpretq_s8_u8(FourTimes(reinterpret_cast<const uint8_t*>(row))); }

// Sums of products of bytes with sixteen columns of a panel that is `columns` wide.
template <int kCount>
struct Bytes {
  int32x4_t sum[kCount][4];

  template <class Row, class Column>
  void Multiply(const Row* a, size_t pitch, const Column* panel, size_t columns, size_t depth) {
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < 4; ++c) sum[r][c] = vdupq_n_s32(0);
    for (size_t k = 0; k < depth; k += 4, panel += 4 * columns) {
      decltype(Load(panel)) column[4];
      for (int c = 0; c < 4; ++c) column[c] = Load(panel + 16 * c);
      for (int r = 0; r < kCount; ++r) {
        auto row = FourTimes(a + r * pitch + k);
        for (int c = 0; c < 4; ++c) sum[r][c] = Dot(sum[r][c], row, column[c]);
      }
    }
  }
};

// sums[r][0 .. 64), `sums_pitch` apart
template <class Row, class Column>
void TileBytes(const Row* a, size_t pitch, const Column* panel, size_t depth, int rows, int32_t* sums,
               size_t sums_pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    for (int c0 = 0; c0 < kPanel; c0 += 16) {
      Bytes<count> bytes;
      bytes.Multiply(a, pitch, panel + 4 * c0, kPanel, depth);
      Store(bytes.sum, sums + c0, sums_pitch);
    }
  });
}

}  // namespace

bool IsSupported() { return getauxval(AT_HWCAP2) & kHwcap2I8mm; }

void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums, bool) {
  TileBytes(a, pitch, panel, depth, rows, sums, kPanel);
}

void TileScores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores, size_t pitch) {
  TileBytes(a, depth, panel, depth, rows, scores, pitch);
}

void TileValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
                const float* scale, float* out, size_t out_pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    for (int c0 = 0; c0 < columns; c0 += 16) {
      Bytes<count> bytes;
      bytes.Multiply(a, pitch, panel + 4 * c0, columns, depth);
      AddValues(bytes.sum, scale, out + c0, out_pitch);
    }
  });
}

}  // namespace edge_vlm
