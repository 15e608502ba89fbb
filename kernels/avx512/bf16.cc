// Products of layers that allow bf16, on x86 with AVX-512 BF16: Intel from Cooper Lake and Sapphire Rapids on, AMD from
// Zen 4 on. This library also runs on processors without it, so only these functions use it.
#include "tile.h"

#include "with_count.h"
#include "processor.h"

#include <immintrin.h>

#include <cstring>
#include <ctime>

#pragma clang attribute push(__attribute__((target("avx512bf16"))), apply_to = function)

namespace edge_vlm {
namespace {

// Turns two rows of sixteen floats into pairs of bf16.
__m512i Pairs(__m512 first, __m512 second) {
  __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second)), 16));
}

template <int kCount>
void DotBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, float* sums) {
  __m512 sum[kCount][4];
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_setzero_ps();
  for (size_t k = 0; k < depth; k += 2, panel += 2 * kPanel) {
    __m512bh column[4];
    for (int c = 0; c < 4; ++c) column[c] = (__m512bh)_mm512_loadu_si512(panel + 32 * c);
    for (int r = 0; r < kCount; ++r) {
      int32_t two;
      std::memcpy(&two, a + r * pitch + k, 4);
      auto row = (__m512bh)_mm512_set1_epi32(two);
      for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], row, column[c]);
    }
  }
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) _mm512_storeu_ps(sums + kPanel * r + 16 * c, sum[r][c]);
}

constexpr size_t kTimedDepth = 128;  // HasBf16 times tiles of this depth: they stay in the first cache
constexpr int kTimedCalls = 16, kTimedRounds = 9;
constexpr double kGain = 1.25;  // bf16 must be so many times as quick: on Zen 4 it is 2, on Intel 0.5

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Keeps the time of the shortest round: what else the machine does only makes rounds longer.
template <class Call>
void Time(const Call& call, double* best) {
  double start = Now();
  for (int i = 0; i < kTimedCalls; ++i) call();
  double taken = Now() - start;
  *best = taken < *best ? taken : *best;
}

// Whether a tile of bf16 is quicker than one of floats of the same size. Both take turns, for 0.3 ms in all.
bool IsQuicker() {
  alignas(64) static float rows[kRows * kTimedDepth], panel[kTimedDepth * kPanel], sums[kRows * kPanel];
  double floats = 1, halves = 1;
  for (int round = 0; round < kTimedRounds; ++round) {
    Time([] { TileFloat(rows, kTimedDepth, panel, kTimedDepth, kRows, sums, false); }, &floats);
    Time([] {
      TileBf16(reinterpret_cast<const uint16_t*>(rows), kTimedDepth, reinterpret_cast<const uint16_t*>(panel), kTimedDepth,
               kRows, sums);
    }, &halves);
  }
  return halves * kGain < floats;
}

}  // namespace

bool HasBf16() {
  static const bool has = [] {
    constexpr unsigned kBf16 = 1u << 5;
    return (Features(kSavesAvx512).eax7_1 & kBf16) && IsQuicker();
  }();
  return has;
}

void PackBf16(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, uint16_t* panel) {
  constexpr size_t kRowsAtOnce = 64;
  alignas(64) float block[kRowsAtOnce * kPanel];
  for (size_t k0 = 0; k0 < depth; k0 += kRowsAtOnce) {
    size_t count = depth - k0 < kRowsAtOnce ? depth - k0 : kRowsAtOnce;
    PackHalf(weights + k0, pitch, count, columns, block);
    for (size_t k = 0; k < RoundUp(count, 2); k += 2)
      for (int c = 0; c < kPanel; c += 16, panel += 32) {
        const float* from = block + k * kPanel + c;
        _mm512_storeu_si512(panel, Pairs(_mm512_loadu_ps(from), _mm512_loadu_ps(from + kPanel)));
      }
  }
}

void RowToBf16(const float* row, size_t count, size_t depth, uint16_t* to) {
  for (size_t i = 0; i < depth; i += 16) {
    size_t valid = i > count ? 0 : count - i < 16 ? count - i : 16, stored = depth - i < 16 ? depth - i : 16;
    __m512 values = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << valid) - 1), row + i);
    auto rounded = (__m256i)_mm512_cvtneps_pbh(values);
    _mm256_mask_storeu_epi16(to + i, static_cast<__mmask16>((1u << stored) - 1), rounded);
  }
}

void TileBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, int rows, float* sums) {
  WithCount<kRows>(rows, [&](auto count) { DotBf16<count>(a, pitch, panel, depth, sums); });
}

}  // namespace edge_vlm

#pragma clang attribute pop
