// AVX2 with FMA and F16C: Intel from Haswell on, AMD from Zen on. Products of 16-bit integers are the fastest exact
// ones on these processors; target.h says how.
#include "with_count.h"
#include "processor.h"
#include "tile.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace edge_vlm {
namespace {

constexpr size_t kDepthOfSums = 64;  // products of elements that a 32-bit sum holds

__m256i Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

// Sixteen columns and up to four rows: two vectors of columns in two forms fill the registers.
template <int kCount>
void DotU8S8(const int16_t* a, size_t pitch, const int16_t* panel, size_t depth, int32_t* sums, bool accumulate) {
  auto* to = reinterpret_cast<__m256i*>(sums);
  constexpr int kPitch = kPanel / 8;
  const int16_t* rows[kCount];
  for (int r = 0; r < kCount; ++r) rows[r] = a + r * pitch;
  __m256i sum[kCount][2];
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 2; ++c) sum[r][c] = accumulate ? Load(to + kPitch * r + c) : _mm256_setzero_si256();
  for (size_t k = 0; k < depth; k += 4, panel += 64) {
    __m256i even[2] = {Load(panel), Load(panel + 16)}, odd[2] = {Load(panel + 32), Load(panel + 48)};
    for (int r = 0; r < kCount; ++r) {
      int32_t pairs[2];
      std::memcpy(pairs, rows[r] + k, 8);
      __m256i row_even = _mm256_set1_epi32(pairs[0]), row_odd = _mm256_set1_epi32(pairs[1]);
      for (int c = 0; c < 2; ++c)
        sum[r][c] = _mm256_add_epi32(
            sum[r][c], _mm256_madd_epi16(_mm256_add_epi16(row_even, odd[c]), _mm256_add_epi16(row_odd, even[c])));
    }
  }
  for (int r = 0; r < kCount; ++r)
    for (int c = 0; c < 2; ++c) _mm256_storeu_si256(to + kPitch * r + c, sum[r][c]);
}

// Sums of products of 16-bit integers, two of a row side by side, for up to six rows and 16 columns.
template <int kCount>
struct Words {
  __m256i sum[kCount][2];

  // panel: has `columns` columns, of which this multiplies the first 16
  void Multiply(const int16_t* a, size_t pitch, const int16_t* panel, size_t columns, size_t depth) {
    const int16_t* rows[kCount];
    for (int r = 0; r < kCount; ++r) {
      rows[r] = a + r * pitch;
      sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    }
    for (size_t k = 0; k < depth; k += 2, panel += 2 * columns) {
      __m256i column[2] = {Load(panel), Load(panel + 16)};
      for (int r = 0; r < kCount; ++r) {
        int32_t two;
        std::memcpy(&two, rows[r] + k, 4);
        __m256i row = _mm256_set1_epi32(two);
        for (int c = 0; c < 2; ++c) sum[r][c] = _mm256_add_epi32(sum[r][c], _mm256_madd_epi16(row, column[c]));
      }
    }
  }
};

template <int kCount>
void AddValues(const int16_t* a, size_t pitch, const int16_t* panel, size_t depth, int columns,
               const float* scale, float* out, size_t out_pitch) {
  for (size_t k0 = 0; k0 < depth; k0 += kDepthOfSums)
    for (int c0 = 0; c0 < columns; c0 += 16) {
      Words<kCount> words;
      words.Multiply(a + k0, pitch, panel + k0 * columns + 2 * c0, columns, kDepthOfSums);
      for (int r = 0; r < kCount; ++r)
        for (int c = 0; c < 2; ++c) {
          float* to = out + r * out_pitch + c0 + 8 * c;
          __m256 sum = _mm256_cvtepi32_ps(words.sum[r][c]);
          _mm256_storeu_ps(to, _mm256_fmadd_ps(sum, _mm256_set1_ps(scale[r]), _mm256_loadu_ps(to)));
        }
    }
}

}  // namespace

bool IsSupported() {
  constexpr unsigned kFma = 1u << 12, kF16c = 1u << 29, kAvx2 = 1u << 5;
  Features has(kSavesAvx);
  return (has.ecx1 & kFma) && (has.ecx1 & kF16c) && (has.ebx7 & kAvx2);
}

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
    for (size_t c0 = 0; c0 < kPanel; c0 += 16) {
      auto row = [&](size_t i) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * step + c0));
      };
      auto* to = reinterpret_cast<__m256i*>(panel + c0 * padded + 16 * k);
      __m128i row0 = row(0), row1 = row(1), row2 = row(2), row3 = row(3);
      _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(row0, row2)));
      _mm256_storeu_si256(to + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(row0, row2)));
      _mm256_storeu_si256(to + 2, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(row1, row3)));
      _mm256_storeu_si256(to + 3, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(row1, row3)));
    }
  }
}

void Place8(const int8_t (*weights)[kBlock4], size_t from, size_t depth, Column8* panel) {
  size_t count = std::min(kBlock4, depth - from);
  const __m256i crossed = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));  // bytes of four rows
  for (size_t c = 0; c < kPanel; ++c) {
    __m256i bytes = _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights[c])), crossed);
    int32_t pairs[16];  // rows 0 and 2, 1 and 3, 4 and 6, ...
    auto* wide = reinterpret_cast<__m256i*>(pairs);
    _mm256_storeu_si256(wide, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)));
    _mm256_storeu_si256(wide + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(bytes, 1)));
    Column8* to = panel + c / 16 * 16 * depth + 16 * from + c % 16 * 2;
    for (size_t k = 0; k < count; k += 2, to += 32) std::memcpy(to, pairs + k / 2, 4);
  }
}

int32_t WidenRow8(const uint8_t* bytes, size_t depth, Row8* row) {
  int32_t sum = 0;
  for (size_t k = 0; k < depth; k += 4) {
    int16_t x0 = bytes[k], x1 = bytes[k + 1], x2 = bytes[k + 2], x3 = bytes[k + 3];
    row[k] = x0, row[k + 1] = x2, row[k + 2] = x1, row[k + 3] = x3;
    sum += x0 * x1 + x2 * x3;
  }
  return sum;
}

// Columns go slowest: sixteen of them, kDepth8 deep, stay in the first cache while all rows pass.
void TileU8S8(const Row8* a, size_t pitch, const Column8* panel, size_t depth, int rows, int32_t* sums,
              bool accumulate) {
  for (int c0 = 0; c0 < kPanel; c0 += 16, panel += 16 * depth, sums += 16)
    for (int r = 0; r < rows; r += 4) {
      const Row8* from = a + r * pitch;
      int32_t* to = sums + r * kPanel;
      WithCount<4>(rows - r, [&](auto count) { DotU8S8<count>(from, pitch, panel, depth, to, accumulate); });
    }
}

void TileScores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores, size_t pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    for (int c0 = 0; c0 < kPanel; c0 += 16) {
      Words<count> words;
      words.Multiply(a, depth, panel + 2 * c0, kPanel, depth);
      for (int r = 0; r < count; ++r)
        for (int c = 0; c < 2; ++c)
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(scores + r * pitch + c0 + 8 * c), words.sum[r][c]);
    }
  });
}

void TileValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int rows, int columns,
                const float* scale, float* out, size_t out_pitch) {
  WithCount<kRows>(rows, [&](auto count) {
    AddValues<count>(a, pitch, panel, depth, columns, scale, out, out_pitch);
  });
}

}  // namespace edge_vlm
