// Turns scores into the softmax's shares with AVX2.
#include "softmax_by_row.h"

#include <immintrin.h>

namespace edge_vlm {
namespace {

constexpr float kLogOfLargestShare = 14;  // kLargestShare is 2^14

__m256i Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

int32_t Highest(const int32_t* scores, size_t count) {
  __m256i highest = Load(scores);
  for (size_t i = 0; i < count; i += 64)
    for (int j = 0; j < 64; j += 8) highest = _mm256_max_epi32(highest, Load(scores + i + j));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(highest), _mm256_extracti128_si256(highest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

float SoftmaxRow(const int32_t* scores, size_t count, float step, int32_t highest, Share* shares) {
  float offset = kLogOfLargestShare - static_cast<float>(highest) * step;
  // 2^f on [-1/2, 1/2] to 5e-6: Taylor's coefficients, the last one adjusted for the ends. Added to 1.5 * 2^23,
  // a whole number stands in the last bits.
  const __m256 c4 = _mm256_set1_ps(0.00967f), c3 = _mm256_set1_ps(0.0555041f), c2 = _mm256_set1_ps(0.2402265f),
               c1 = _mm256_set1_ps(0.6931472f), one = _mm256_set1_ps(1.0f), steps = _mm256_set1_ps(step),
               offsets = _mm256_set1_ps(offset), least = _mm256_set1_ps(-100.0f),
               magic = _mm256_set1_ps(12582912.0f);
  static const int16_t kCounted[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < count; i += 16) {
    __m256i both[2];
    for (int j = 0; j < 2; ++j) {
      __m256 score = _mm256_cvtepi32_ps(Load(scores + i + 8 * j));
      __m256 value = _mm256_max_ps(_mm256_fmadd_ps(score, steps, offsets), least);
      __m256 whole = _mm256_round_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      __m256 f = _mm256_sub_ps(value, whole);
      __m256 p = _mm256_fmadd_ps(_mm256_fmadd_ps(_mm256_fmadd_ps(_mm256_fmadd_ps(c4, f, c3), f, c2), f, c1), f, one);
      __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(_mm256_add_ps(whole, magic)), 23);
      both[j] = _mm256_cvtps_epi32(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent)));
    }
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(both[0], both[1]), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(shares + i), packed);
    __m256i counted = Load(kCounted + (count - i < 16 ? 16 - (count - i) : 0));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(packed, counted));
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<float>(_mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
}

}  // namespace

void SoftmaxRows(const int32_t* scores, size_t pitch, int rows, size_t count, const float* steps, Share* shares,
                 int32_t* highest, float* sums) {
  SoftmaxByRow(Highest, SoftmaxRow, scores, pitch, rows, count, steps, shares, highest, sums);
}

}  // namespace edge_vlm
