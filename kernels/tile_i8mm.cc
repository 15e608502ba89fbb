// Armv8.6 with I8MM and BF16: Neoverse V1, N2 and later, Cortex-A710 and X2 and later, Apple M2 and later.
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "counts.h"
#include "tile.h"

#include <arm_neon.h>
#include <sys/auxv.h>

namespace edge_vlm {
namespace {

constexpr unsigned long kHwcap2I8mm = 1UL << 13, kHwcap2Bf16 = 1UL << 14;

template <int kCount>
void DotU8S8(const uint8_t* a, size_t pitch, const int8_t* panel, size_t depth, int32_t* sums, bool accumulate) {
  for (int c0 = 0; c0 < kPanel; c0 += 16) {  // 6 x 4 sums of four lanes
    int32x4_t sum[kCount][4];
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < 4; ++c)
        sum[r][c] = accumulate ? vld1q_s32(sums + kPanel * r + c0 + 4 * c) : vdupq_n_s32(0);
    const int8_t* from = panel + 4 * c0;
    for (size_t k = 0; k < depth; k += 4, from += 4 * kPanel) {
      int8x16_t column[4];
      for (int c = 0; c < 4; ++c) column[c] = vld1q_s8(from + 16 * c);
      for (int r = 0; r < kCount; ++r) {
        uint32_t four;
        std::memcpy(&four, a + r * pitch + k, 4);
        uint8x16_t row = vreinterpretq_u8_u32(vdupq_n_u32(four));
        for (int c = 0; c < 4; ++c) sum[r][c] = vusdotq_s32(sum[r][c], row, column[c]);
      }
    }
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < 4; ++c) vst1q_s32(sums + kPanel * r + c0 + 4 * c, sum[r][c]);
  }
}

template <int kCount>
void DotBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, int columns, float* sums,
             size_t sums_pitch, bool accumulate) {
  for (int c0 = 0; c0 < columns; c0 += 16) {
    float32x4_t sum[kCount][4];
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < 4; ++c)
        sum[r][c] = accumulate ? vld1q_f32(sums + r * sums_pitch + c0 + 4 * c) : vdupq_n_f32(0);
    const uint16_t* from = panel + 2 * c0;
    for (size_t k = 0; k < depth; k += 2, from += 2 * columns) {
      bfloat16x8_t column[4];
      for (int c = 0; c < 4; ++c) column[c] = vreinterpretq_bf16_u16(vld1q_u16(from + 8 * c));
      for (int r = 0; r < kCount; ++r) {
        uint32_t two;
        std::memcpy(&two, a + r * pitch + k, 4);
        bfloat16x8_t row = vreinterpretq_bf16_u32(vdupq_n_u32(two));
        for (int c = 0; c < 4; ++c) sum[r][c] = vbfdotq_f32(sum[r][c], row, column[c]);
      }
    }
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < 4; ++c) vst1q_f32(sums + r * sums_pitch + c0 + 4 * c, sum[r][c]);
  }
}

}  // namespace

bool IsSupported() {
  unsigned long has = getauxval(AT_HWCAP2);
  return (has & kHwcap2I8mm) && (has & kHwcap2Bf16);
}

void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums,
              bool accumulate) {
  WithCount<kRows>(rows, [&](auto count) { DotU8S8<count>(a, pitch, panel, depth, sums, accumulate); });
}

void TileHalf(const HalfRow* a, size_t pitch, const HalfColumn* panel, size_t depth, int rows, float* sums,
              bool accumulate) {
  TileElements(a, pitch, panel, depth, rows, kPanel, 1.0f, sums, kPanel, accumulate);
}

void TileElements(const Element* a, size_t pitch, const Element* panel, size_t depth, int rows, int columns, float,
                  float* sums, size_t sums_pitch, bool accumulate) {
  WithCount<kRows>(rows, [&](auto count) {
    DotBf16<count>(a, pitch, panel, depth, columns, sums, sums_pitch, accumulate);
  });
}

}  // namespace edge_vlm
#endif
