// AVX-512 with VNNI: Intel from Cascade Lake and Ice Lake on, AMD from Zen 4 on.
#if defined(__AVX512VNNI__)
#include "counts.h"
#include "processor.h"
#include "tile.h"

#include <immintrin.h>

#include <cstring>

namespace edge_vlm {
namespace {

constexpr float kLogOfWeight = 7.99435344f;  // kLargestWeight is 255

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
void AddValues(const uint8_t* a, size_t pitch, const int8_t* panel, size_t depth, const float* keep, const float* scale,
               float* out, size_t out_pitch) {
  Bytes<kCount, kVectors, true> bytes;
  bytes.Multiply(a, pitch, panel, depth);
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < kVectors; ++c) {
      float* to = out + r * out_pitch + 16 * c;
      __m512 kept = _mm512_mul_ps(_mm512_loadu_ps(to), _mm512_set1_ps(keep[r]));
      _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(bytes.sum[r][c]), _mm512_set1_ps(scale[r]), kept));
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

void TileValues(const Weight* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns, const float* keep,
                const float* scale, float* out, size_t out_pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    WithCount<4>(columns / 16, [&](auto vectors) {
      AddValues<count, vectors>(a, pitch, panel, depth, keep, scale, out, out_pitch);
    });
  });
}

int32_t Highest(const int32_t* scores, size_t count) {
  __m512i highest = _mm512_loadu_si512(scores);
  for (size_t i = 0; i < count; i += 64)
    for (int j = 0; j < 64; j += 16) highest = _mm512_max_epi32(highest, _mm512_loadu_si512(scores + i + j));
  return _mm512_reduce_max_epi32(highest);
}

float WeighRow(const int32_t* scores, size_t count, float step, float offset, Weight* weights) {
  // 2^f on [-1/2, 1/2] to 1e-4
  const __m512 c3 = _mm512_set1_ps(0.0558f), c2 = _mm512_set1_ps(0.2402265f), c1 = _mm512_set1_ps(0.6931472f),
               one = _mm512_set1_ps(1.0f), steps = _mm512_set1_ps(step), offsets = _mm512_set1_ps(offset + kLogOfWeight);
  // packing goes by quarters of a vector
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i sum = _mm512_setzero_si512();
  for (size_t i = 0; i < count; i += 64) {
    __m512i part[4];
    for (int j = 0; j < 4; ++j) {
      __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(scores + i + 16 * j)), steps, offsets);
      __m512 whole = _mm512_roundscale_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      __m512 f = _mm512_sub_ps(value, whole);
      __m512 p = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c3, f, c2), f, c1), f, one);
      part[j] = _mm512_cvtps_epi32(_mm512_scalef_ps(p, whole));
    }
    __m512i packed = _mm512_packus_epi16(_mm512_packs_epi32(part[0], part[1]), _mm512_packs_epi32(part[2], part[3]));
    packed = _mm512_permutexvar_epi32(order, packed);
    _mm512_storeu_si512(weights + i, packed);
    __mmask64 is_valid = _cvtu64_mask64(count - i < 64 ? (uint64_t{1} << (count - i)) - 1 : ~uint64_t{0});
    sum = _mm512_dpbusd_epi32(sum, packed, _mm512_maskz_mov_epi8(is_valid, _mm512_set1_epi8(1)));
  }
  return static_cast<float>(_mm512_reduce_add_epi32(sum));
}

}  // namespace edge_vlm
#endif
