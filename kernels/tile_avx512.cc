// AVX-512 with VNNI and BF16: Intel from Cooper Lake and Sapphire Rapids on, AMD from Zen 4 on.
#if defined(__AVX512BF16__)
#include "processor.h"
#include "tile.h"

#include <immintrin.h>

#include <cstring>

namespace edge_vlm {
namespace {

template <int kCount>
void DotU8S8(const uint8_t* a, size_t pitch, const int8_t* panel, size_t depth, int32_t* sums, bool accumulate) {
  __m512i sum[kCount][4];
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c)
      sum[r][c] = accumulate ? _mm512_loadu_si512(sums + kPanel * r + 16 * c) : _mm512_setzero_si512();
  for (size_t k = 0; k < depth; k += 4, panel += 4 * kPanel) {
    __m512i column[4];
    for (int c = 0; c < 4; ++c) column[c] = _mm512_loadu_si512(panel + 64 * c);
    for (int r = 0; r < kCount; ++r) {
      int32_t four;
      std::memcpy(&four, a + r * pitch + k, 4);
      __m512i row = _mm512_set1_epi32(four);
      for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_dpbusd_epi32(sum[r][c], row, column[c]);
    }
  }
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 4; ++c) _mm512_storeu_si512(sums + kPanel * r + 16 * c, sum[r][c]);
}

template <int kCount, int kVectors>
void DotBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, float* sums, size_t sums_pitch,
             bool accumulate) {
  __m512 sum[kCount][kVectors];
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < kVectors; ++c)
      sum[r][c] = accumulate ? _mm512_loadu_ps(sums + r * sums_pitch + 16 * c) : _mm512_setzero_ps();
  for (size_t k = 0; k < depth; k += 2, panel += 32 * kVectors) {
    __m512bh column[kVectors];
    for (int c = 0; c < kVectors; ++c) column[c] = (__m512bh)_mm512_loadu_si512(panel + 32 * c);
    for (int r = 0; r < kCount; ++r) {
      int32_t two;
      std::memcpy(&two, a + r * pitch + k, 4);
      auto row = (__m512bh)_mm512_set1_epi32(two);
      for (int c = 0; c < kVectors; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], row, column[c]);
    }
  }
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < kVectors; ++c) _mm512_storeu_ps(sums + r * sums_pitch + 16 * c, sum[r][c]);
}

template <int kVectors>
void RowsBf16(const uint16_t* a, size_t pitch, const uint16_t* panel, size_t depth, int rows, float* sums,
              size_t sums_pitch, bool accumulate) {
  switch (rows) {
    case 1: return DotBf16<1, kVectors>(a, pitch, panel, depth, sums, sums_pitch, accumulate);
    case 2: return DotBf16<2, kVectors>(a, pitch, panel, depth, sums, sums_pitch, accumulate);
    case 3: return DotBf16<3, kVectors>(a, pitch, panel, depth, sums, sums_pitch, accumulate);
    case 4: return DotBf16<4, kVectors>(a, pitch, panel, depth, sums, sums_pitch, accumulate);
    case 5: return DotBf16<5, kVectors>(a, pitch, panel, depth, sums, sums_pitch, accumulate);
    default: return DotBf16<6, kVectors>(a, pitch, panel, depth, sums, sums_pitch, accumulate);
  }
}

}  // namespace

bool IsSupported() {
  constexpr unsigned kFDqBwVl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, kVnni = 1u << 11, kBf16 = 1u << 5;
  Features has(kSavesAvx512);
  return (has.ebx7 & kFDqBwVl) == kFDqBwVl && (has.ecx7 & kVnni) && (has.eax7_1 & kBf16);
}

void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums,
              bool accumulate) {
  switch (rows) {
    case 1: return DotU8S8<1>(a, pitch, panel, depth, sums, accumulate);
    case 2: return DotU8S8<2>(a, pitch, panel, depth, sums, accumulate);
    case 3: return DotU8S8<3>(a, pitch, panel, depth, sums, accumulate);
    case 4: return DotU8S8<4>(a, pitch, panel, depth, sums, accumulate);
    case 5: return DotU8S8<5>(a, pitch, panel, depth, sums, accumulate);
    default: return DotU8S8<6>(a, pitch, panel, depth, sums, accumulate);
  }
}

void TileHalf(const HalfRow* a, size_t pitch, const HalfColumn* panel, size_t depth, int rows, float* sums,
              bool accumulate) {
  RowsBf16<4>(a, pitch, panel, depth, rows, sums, kPanel, accumulate);
}

void TileElements(const Element* a, size_t pitch, const Element* panel, size_t depth, int rows, int columns, float,
                  float* sums, size_t sums_pitch, bool accumulate) {
  switch (columns) {
    case 16: return RowsBf16<1>(a, pitch, panel, depth, rows, sums, sums_pitch, accumulate);
    case 32: return RowsBf16<2>(a, pitch, panel, depth, rows, sums, sums_pitch, accumulate);
    case 48: return RowsBf16<3>(a, pitch, panel, depth, rows, sums, sums_pitch, accumulate);
    default: return RowsBf16<4>(a, pitch, panel, depth, rows, sums, sums_pitch, accumulate);
  }
}

float Exp2Row(const float* x, size_t count, float high, Element* weights) {
  // 2^f on [-1/2, 1/2] to 5e-6: Taylor's coefficients, the last one adjusted for the ends
  const __m512 c4 = _mm512_set1_ps(0.00967f), c3 = _mm512_set1_ps(0.0555041f), c2 = _mm512_set1_ps(0.2402265f),
               c1 = _mm512_set1_ps(0.6931472f), one = _mm512_set1_ps(1.0f), top = _mm512_set1_ps(high);
  __m512 sum = _mm512_setzero_ps();
  for (size_t i = 0; i < count; i += 32) {
    __m512 both[2];
    for (int j = 0; j < 2; ++j) {
      __m512 value = _mm512_sub_ps(_mm512_loadu_ps(x + i + 16 * j), top);
      __m512 whole = _mm512_roundscale_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      __m512 f = _mm512_sub_ps(value, whole);
      __m512 p = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c4, f, c3), f, c2), f, c1), f, one);
      both[j] = _mm512_scalef_ps(p, whole);
      sum = _mm512_add_ps(sum, both[j]);
    }
    _mm512_storeu_si512(weights + i, (__m512i)_mm512_cvtne2ps_pbh(both[1], both[0]));
  }
  return _mm512_reduce_add_ps(sum);
}

}  // namespace edge_vlm
#endif
