// Half-precision layers on x86: weights become float32 where they are used, and so are the products.
#if defined(__x86_64__)
#include "counts.h"
#include "tile.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace edge_vlm {
namespace {

#if defined(__AVX512F__)
using Vector = __m512;
Vector Load(const float* from) { return _mm512_loadu_ps(from); }
void Store(float* to, Vector values) { _mm512_storeu_ps(to, values); }
Vector Repeat(float value) { return _mm512_set1_ps(value); }
Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }
#else
using Vector = __m256;
Vector Load(const float* from) { return _mm256_loadu_ps(from); }
void Store(float* to, Vector values) { _mm256_storeu_ps(to, values); }
Vector Repeat(float value) { return _mm256_set1_ps(value); }
Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }
#endif

constexpr int kLanes = sizeof(Vector) / sizeof(float), kWidth = 2 * kLanes;  // columns of a tile

// Two vectors of columns and so many rows that the sums fill the registers.
template <int kCount>
void DotHalf(const float* a, size_t pitch, const float* panel, size_t depth, float* sums, bool accumulate) {
  Vector sum[kCount][2];
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 2; ++c) sum[r][c] = accumulate ? Load(sums + kPanel * r + kLanes * c) : Repeat(0);
  for (size_t k = 0; k < depth; ++k, panel += kPanel) {
    Vector column[2] = {Load(panel), Load(panel + kLanes)};
    for (int r = 0; r < kCount; ++r) {
      Vector row = Repeat(a[r * pitch + k]);
      for (int c = 0; c < 2; ++c) sum[r][c] = MultiplyAdd(row, column[c], sum[r][c]);
    }
  }
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 2; ++c) Store(sums + kPanel * r + kLanes * c, sum[r][c]);
}

}  // namespace

void PackHalf(const uint16_t* weights, size_t pitch, size_t depth, size_t columns, HalfColumn* panel) {
  size_t padded = RoundUp(depth, 2);
  for (size_t c0 = 0; c0 < kPanel; c0 += 8)
    for (size_t k0 = 0; k0 < padded; k0 += 8) {
      size_t width = std::min<size_t>(8, padded - k0), valid = std::min<size_t>(8, depth - k0);
      float block[8][8] = {};  // [column][k]
      for (size_t c = c0; c < std::min(c0 + 8, columns); ++c) {
        uint16_t halves[8] = {};
        const uint16_t* from = weights + c * pitch + k0;
        if (valid < 8) std::memcpy(halves, from, 2 * valid), from = halves;
        _mm256_storeu_ps(block[c - c0], _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
      }
      for (size_t k = 0; k < width; ++k)
        for (size_t c = 0; c < 8; ++c) panel[(k0 + k) * kPanel + c0 + c] = block[c][k];
    }
}

// Columns go slowest: some of them, kCutHalf.depth deep, stay near the first cache while all rows pass.
void TileHalf(const float* a, size_t pitch, const HalfColumn* panel, size_t depth, int rows, float* sums,
              bool accumulate) {
  constexpr int kMost = kLanes == 16 ? 12 : 6;  // twice as many registers
  for (int c0 = 0; c0 < kPanel; c0 += kWidth, panel += kWidth, sums += kWidth)
    for (int r = 0; r < rows; r += kMost)
      WithCount<kMost>(rows - r, [&](auto count) {
        DotHalf<count>(a + r * pitch, pitch, panel, depth, sums + r * kPanel, accumulate);
      });
}

}  // namespace edge_vlm
#endif
