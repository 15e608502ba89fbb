// Turns scores into the softmax's shares with AVX-512. For whole blocks it finds them in a table, where the processor
// looks up 128 bytes at once (VBMI: Intel from Ice Lake on, AMD from Zen 4 on); it computes the others.
#include "matrix.h"
#include "processor.h"
#include "tile.h"

#include <immintrin.h>

#include <type_traits>

namespace edge_vlm {
namespace {

constexpr int kLanes = 16;
constexpr float kLogOfLargestShare = 7.99435344f;  // kLargestShare is 255

__m512i Join(__m512i a, __m512i b, std::true_type) { return _mm512_max_epi32(a, b); }
__m512i Join(__m512i a, __m512i b, std::false_type) { return _mm512_add_epi32(a, b); }

// The highest lane of each row, or the sum of its lanes, one behind another; numbers behind those of kCount rows mean
// nothing. Each round joins two vectors into one, and halves the lanes that a row still has.
template <int kCount, class IsHighest>
__m512i AcrossLanes(const __m512i (&rows)[kCount], IsHighest is_highest) {
  constexpr int kTwo = (kCount + 1) / 2, kFour = (kTwo + 1) / 2, kEight = (kFour + 1) / 2;
  static_assert(kEight <= 2, "up to sixteen rows");
  __m512i two[kTwo], four[kFour], eight[kEight];
  for (int i = 0; i < kTwo; ++i) {
    __m512i a = rows[2 * i], b = rows[2 * i + 1 < kCount ? 2 * i + 1 : 2 * i];
    two[i] = Join(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b), is_highest);
  }
  for (int i = 0; i < kFour; ++i) {
    __m512i a = two[2 * i], b = two[2 * i + 1 < kTwo ? 2 * i + 1 : 2 * i];
    four[i] = Join(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b), is_highest);
  }
  for (int i = 0; i < kEight; ++i) {
    __m512i a = four[2 * i], b = four[2 * i + 1 < kFour ? 2 * i + 1 : 2 * i];
    eight[i] = Join(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd), is_highest);
  }
  __m512i a = eight[0], b = eight[kEight - 1];
  return Join(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd), is_highest);
}

// The lanes that hold a number of each of kCount rows, rounded up to a half or a whole vector.
template <int kCount>
constexpr __mmask16 kLanesOf = kCount <= kPaddedRows ? 0xff : 0xffff;

// Returns the highest score of each row as floats, and stores it in `highest`.
template <int kCount>
__m512 Highest(const int32_t* scores, size_t pitch, size_t count, int32_t* highest) {
  __m512i rows[kCount];
  for (int r = 0; r < kCount; ++r) {
    const int32_t* from = scores + r * pitch;
    rows[r] = _mm512_loadu_si512(from);
    for (size_t i = 0; i < count; i += 64)
      for (int j = 0; j < 64; j += 16) rows[r] = _mm512_max_epi32(rows[r], _mm512_loadu_si512(from + i + j));
  }
  __m512i lanes = AcrossLanes(rows, std::true_type{});
  _mm512_mask_storeu_epi32(highest, kLanesOf<kCount>, lanes);
  return _mm512_cvtepi32_ps(lanes);
}

template <int kCount>
void StoreSums(const __m512i (&rows)[kCount], float* sums) {
  _mm512_mask_storeu_ps(sums, kLanesOf<kCount>, _mm512_cvtepi32_ps(AcrossLanes(rows, std::false_type{})));
}

// Narrows words to bytes between 0 and 255.
__m512i Pack(const __m512i (&part)[4]) {
  return _mm512_packus_epi16(_mm512_packs_epi32(part[0], part[1]), _mm512_packs_epi32(part[2], part[3]));
}

// Pack works by quarters of a vector; this puts the bytes back in their order.
__m512i InOrder(__m512i packed) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed);
}

// Adds four shares to each lane of the sum.
__m512i Add(__m512i sum, __m512i shares) { return _mm512_dpbusd_epi32(sum, shares, _mm512_set1_epi8(1)); }

template <int kCount>
void Compute(const int32_t* scores, size_t pitch, size_t count, const float* steps, Share* shares, int32_t* highest,
             float* sums) {
  // 2^f on [-1/2, 1/2] to 1e-4
  const __m512 c3 = _mm512_set1_ps(0.0558f), c2 = _mm512_set1_ps(0.2402265f), c1 = _mm512_set1_ps(0.6931472f),
               one = _mm512_set1_ps(1.0f);
  alignas(64) float offsets[kLanes];
  __m512 top = Highest<kCount>(scores, pitch, count, highest), of_rows = _mm512_maskz_loadu_ps(kLanesOf<kCount>, steps);
  _mm512_store_ps(offsets, _mm512_fnmadd_ps(top, of_rows, _mm512_set1_ps(kLogOfLargestShare)));
  __m512i sum[kCount];
  for (int r = 0; r < kCount; ++r, scores += pitch, shares += pitch) {
    const __m512 step = _mm512_set1_ps(steps[r]), offset = _mm512_set1_ps(offsets[r]);
    sum[r] = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += 64) {
      __m512i part[4];
      for (int j = 0; j < 4; ++j) {
        __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(scores + i + 16 * j)), step, offset);
        __m512 whole = _mm512_roundscale_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m512 f = _mm512_sub_ps(value, whole);
        __m512 p = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(c3, f, c2), f, c1), f, one);
        part[j] = _mm512_cvtps_epi32(_mm512_scalef_ps(p, whole));
      }
      __m512i packed = InOrder(Pack(part));
      if (count - i < 64) packed = _mm512_maskz_mov_epi8(_cvtu64_mask64((uint64_t{1} << (count - i)) - 1), packed);
      _mm512_storeu_si512(shares + i, packed);
      sum[r] = Add(sum[r], packed);
    }
  }
  StoreSums(sum, sums);
}

constexpr float kPlaces = 32;  // the table has so many for each power of two: shares are right to 1.1 %
constexpr float kLargestStep = 64;  // in places; scores are below 2^23, so their differences fit 32 bits

struct alignas(64) Table {
  uint8_t shares[256] = {};  // the last one, and all that lie behind it, are zero

  constexpr Table() {
    constexpr double kFactor = 0.97857206208770013;  // 2^(-1 / kPlaces)
    double share = kLargestShare;
    for (int i = 0; i < 255; ++i, share *= kFactor) shares[i] = static_cast<uint8_t>(share + 0.5);
  }
  __m512i operator[](int quarter) const { return _mm512_load_si512(shares + 64 * quarter); }
};
constexpr Table table;

// count: a multiple of 64
template <int kCount>
__attribute__((target("avx512vbmi"))) void LookUp(const int32_t* scores, size_t pitch, size_t count, const float* steps,
                                                   Share* shares, int32_t* highest, float* sums) {
  alignas(64) float places[kLanes], offsets[kLanes];
  __m512 top = Highest<kCount>(scores, pitch, count, highest);
  __m512 place = _mm512_mul_ps(_mm512_maskz_loadu_ps(kLanesOf<kCount>, steps), _mm512_set1_ps(kPlaces));
  place = _mm512_min_ps(place, _mm512_set1_ps(kLargestStep));
  _mm512_store_ps(places, place), _mm512_store_ps(offsets, _mm512_mul_ps(top, place));
  const __m512i near[2] = {table[0], table[1]}, far[2] = {table[2], table[3]};
  __m512i sum[kCount];
  for (int r = 0; r < kCount; ++r, scores += pitch, shares += pitch) {
    const __m512 step = _mm512_set1_ps(places[r]), offset = _mm512_set1_ps(offsets[r]);
    sum[r] = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += 64) {
      __m512i part[4];
      for (int j = 0; j < 4; ++j)
        part[j] = _mm512_cvtps_epi32(
            _mm512_fnmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(scores + i + 16 * j)), step, offset));
      __m512i found = Pack(part);
      __m512i low = _mm512_permutex2var_epi8(near[0], found, near[1]);
      __m512i high = _mm512_permutex2var_epi8(far[0], found, far[1]);
      found = InOrder(_mm512_mask_mov_epi8(low, _mm512_movepi8_mask(found), high));
      _mm512_storeu_si512(shares + i, found);
      sum[r] = Add(sum[r], found);
    }
  }
  StoreSums(sum, sums);
}

bool HasVbmi() {
  constexpr unsigned kVbmi = 1u << 1;
  return Features(kSavesAvx512).ecx7 & kVbmi;
}

template <int kCount>
void Softmax(const int32_t* scores, size_t pitch, size_t count, const float* steps, Share* shares, int32_t* highest,
             float* sums) {
  static const bool has_vbmi = HasVbmi();
  (has_vbmi && count % 64 == 0 ? LookUp<kCount> : Compute<kCount>)(scores, pitch, count, steps, shares, highest, sums);
}

}  // namespace

void SoftmaxRows(const int32_t* scores, size_t pitch, int, size_t count, const float* steps, Share* shares,
                 int32_t* highest, float* sums) {
  Softmax<kRows>(scores, pitch, count, steps, shares, highest, sums);
}

void MatrixSoftmax(const int32_t* scores, size_t pitch, size_t count, const float* steps, Share* shares,
                   int32_t* highest, float* sums) {
  Softmax<kMatrixQueries>(scores, pitch, count, steps, shares, highest, sums);
}

}  // namespace edge_vlm
