// AVX-512 with VNNI: Intel from Cascade Lake and Ice Lake on, AMD from Zen 4 on.
#include "with_count.h"
#include "processor.h"
#include "tile.h"

#include <immintrin.h>

#include <cstring>

namespace edge_vlm {
namespace {

// Sums of products of bytes, four of a row side by side, for up to six rows and 64 columns. One side is unsigned.
template <int kCount, int kVectors, bool kIsRowUnsigned>
struct Bytes {
  __m512i sum[kCount][kVectors];

  void Multiply(const void* a, size_t pitch, const void* panel, size_t depth) {
    auto* rows = static_cast<const uint8_t*>(a);
    auto* columns = static_cast<const uint8_t*>(panel);
    for (int r = 0; r < kCount; ++r)
      for (int c = 0; c < kVectors; ++c) sum[r][c] = _mm512_setzero_si512();
    for (size_t k = 0; k < depth; k += 4, columns += 64 * kVectors) {
      __m512i column[kVectors];
      for (int c = 0; c < kVectors; ++c) column[c] = _mm512_loadu_si512(columns + 64 * c);
      for (int c = 0; c < kVectors; ++c) __builtin_prefetch(columns + 8 * 64 * kVectors + 64 * c);
      for (int r = 0; r < kCount; ++r) {
        int32_t four;
        std::memcpy(&four, rows + r * pitch + k, 4);
        __m512i row = _mm512_set1_epi32(four);
        for (int c = 0; c < kVectors; ++c)
          sum[r][c] = kIsRowUnsigned ? _mm512_dpbusd_epi32(sum[r][c], row, column[c])
                                     : _mm512_dpbusd_epi32(sum[r][c], column[c], row);
      }
    }
  }
};

// sums[r][0 .. 64), `sums_pitch` apart
template <bool kIsRowUnsigned>
void TileBytes(const void* a, size_t pitch, const void* panel, size_t depth, int rows, int32_t* sums,
               size_t sums_pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    Bytes<count, 4, kIsRowUnsigned> bytes;
    bytes.Multiply(a, pitch, panel, depth);
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < 4; ++c) _mm512_storeu_si512(sums + sums_pitch * r + 16 * c, bytes.sum[r][c]);
  });
}

template <int kCount, int kVectors>
void AddValues(const uint8_t* a, size_t pitch, const int8_t* panel, size_t depth, const float* scale, float* out,
               size_t out_pitch) {
  Bytes<kCount, kVectors, true> bytes;
  bytes.Multiply(a, pitch, panel, depth);
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < kVectors; ++c) {
      float* to = out + r * out_pitch + 16 * c;
      __m512 added = _mm512_fmadd_ps(_mm512_cvtepi32_ps(bytes.sum[r][c]), _mm512_set1_ps(scale[r]), _mm512_loadu_ps(to));
      _mm512_storeu_ps(to, added);
    }
}

}  // namespace

bool IsSupported() {
  constexpr unsigned kFDqBwVl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, kVnni = 1u << 11;
  Features has(kSavesAvx512);
  return (has.ebx7 & kFDqBwVl) == kFDqBwVl && (has.ecx7 & kVnni);
}

void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums, bool) {
  TileBytes<true>(a, pitch, panel, depth, rows, sums, kPanel);
}

void TileScores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores, size_t pitch) {
  TileBytes<false>(a, depth, panel, depth, rows, scores, pitch);
}

void TileValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
                const float* scale, float* out, size_t out_pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    WithCount<4>(columns / 16, [&](auto vectors) {
      AddValues<count, vectors>(a, pitch, panel, depth, scale, out, out_pitch);
    });
  });
}

}  // namespace edge_vlm
