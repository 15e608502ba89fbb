#include "heads.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace edge_vlm {
namespace {

using Word = std::conditional_t<kGroup * sizeof(Key) == 4, uint32_t, uint16_t>;  // the elements of a group

constexpr float kSmallest = 1e-30f;

[[gnu::always_inline]] inline float Largest(const float* x, size_t count) {
  int32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    int32_t order = InOrder(std::fabs(x[i]));
    largest = order > largest ? order : largest;
  }
  return std::max(FromOrder(largest), kSmallest);
}

int32_t Round(float x) { return static_cast<int32_t>(std::rint(x)); }

using Lanes = float __attribute__((vector_size(64)));
constexpr size_t kLanes = 16;

// Applies the stages of Hadamard's matrix to a power of two of numbers or vectors, and does not scale them.
template <class Number>
void Combine(Number* x, size_t size) {
  for (size_t half = 1; half < size; half *= 2)
    for (size_t i = 0; i < size; ++i)
      if (!(i & half)) {
        Number a = x[i], b = x[i + half];
        x[i] = a + b, x[i + half] = a - b;
      }
}

// Adds to every lane, or subtracts from it, the lane that is kHalf away.
template <int kHalf>
void Butterflies(Lanes& x) {
  Lanes other = __builtin_shufflevector(x, x, 0 ^ kHalf, 1 ^ kHalf, 2 ^ kHalf, 3 ^ kHalf, 4 ^ kHalf, 5 ^ kHalf, 6 ^ kHalf,
                                        7 ^ kHalf, 8 ^ kHalf, 9 ^ kHalf, 10 ^ kHalf, 11 ^ kHalf, 12 ^ kHalf, 13 ^ kHalf,
                                        14 ^ kHalf, 15 ^ kHalf);
  Lanes signs;
  for (int i = 0; i < 16; ++i) signs[i] = i & kHalf ? -1.0f : 1.0f;
  x = x * signs + other;
}

// Multiplies 16 * kCount channels by Hadamard's matrix.
template <size_t kCount>
void MixVectors(float* x) {
  Lanes v[kCount];
  std::memcpy(v, x, sizeof(v));
  Combine(v, kCount);
  const float root = 1.0f / std::sqrt(static_cast<float>(kLanes * kCount));
  for (Lanes& one : v) {
    Butterflies<8>(one), Butterflies<4>(one), Butterflies<2>(one), Butterflies<1>(one);
    one *= root;
  }
  std::memcpy(x, v, sizeof(v));
}

// The same for a power of two below 16.
void MixFew(float* x, size_t size) {
  Combine(x, size);
  float root = 1.0f / std::sqrt(static_cast<float>(size));
  for (size_t i = 0; i < size; ++i) x[i] *= root;
}

// Multiplies channels by an orthogonal matrix that spreads a loud one over the others: Hadamard's, of the largest
// powers of two that fit, one behind another. Where both queries and keys are mixed, their products stay as they are.
[[maybe_unused, gnu::always_inline]] inline void Mix(float* x, size_t width) {
  while (width) {
    size_t size = 1;
    while (2 * size <= width) size *= 2;
    switch (size / kLanes) {
      case 0: MixFew(x, size); break;
      case 1: MixVectors<1>(x); break;
      case 2: MixVectors<2>(x); break;
      case 4: MixVectors<4>(x); break;
      case 8: MixVectors<8>(x); break;
      default: MixVectors<kMaxHeadDim / kLanes>(x);
    }
    x += size, width -= size;
  }
}

// Calls call(width), with a constant for the usual widths, so that compilers unroll loops over it.
template <class Call>
auto WithWidth(size_t width, const Call& call) {
  if (width == 64) return call(std::integral_constant<size_t, 64>{});
  if (width == 72) return call(std::integral_constant<size_t, 72>{});
  if (width == 128) return call(std::integral_constant<size_t, 128>{});
  return call(width);
}

template <class Width>
[[gnu::always_inline]] inline void RotateRow(const Head& head, size_t row, Width width, float* __restrict to) {
  const size_t half = width / 2;
  const float *x = head.rows + row * head.pitch, *cosines = head.cosines + row * half, *sines = head.sines + row * half;
  PrefetchRow(x, head.pitch, width);
  for (size_t i = 0; i < half; ++i) to[i] = x[i] * cosines[i] - x[i + half] * sines[i];
  for (size_t i = 0; i < half; ++i) to[i + half] = x[i + half] * cosines[i] + x[i] * sines[i];
}

template <class Width>
[[gnu::always_inline]] inline float PackQueryRow(const Head& head, size_t row, Width width, size_t depth,
                                                 Query* __restrict query) {
  alignas(64) float x[kMaxHeadDim];
  RotateRow(head, row, width, x);
  if (kMixesChannels) Mix(x, width);
  float largest = Largest(x, width), inverse = kLargestQuery / largest;
  for (size_t i = 0; i < width; ++i) query[i] = static_cast<Query>(Round(x[i] * inverse));
  for (size_t i = width; i < depth; ++i) query[i] = 0;
  return largest / kLargestQuery;
}

}  // namespace

void Rotate(const Head& head, size_t row, float* to) { RotateRow(head, row, head.width, to); }

float PackQuery(const Head& head, size_t row, size_t depth, Query* query) {
  return WithWidth(head.width, [&](auto width) { return PackQueryRow(head, row, width, depth, query); });
}

template <class Width>
[[gnu::always_inline]] inline void PackKeysOf(const Run& run, const Head& head, Width width, size_t depth, Key* keys,
                                              float* steps) {
  size_t num_words = depth / kGroup;
  float mean[kMaxHeadDim] = {};
  Scratch<float> rows(run, head.num_rows * width);
  for (size_t row = 0; row < head.num_rows; ++row) {
    float* key = rows.get() + row * width;
    RotateRow(head, row, width, key);
    for (size_t i = 0; i < width; ++i) mean[i] += key[i];
  }
  for (size_t i = 0; i < width; ++i) mean[i] /= static_cast<float>(head.num_rows);
  Scratch<Word> words(run, kKeysPerBlock * num_words);
  auto* to = reinterpret_cast<Word*>(keys);
  for (size_t first = 0; first < head.num_rows; first += kKeysPerBlock) {
    size_t count = std::min(kKeysPerBlock, head.num_rows - first);
    float* block = rows.get() + first * width;
    for (size_t row = 0; row < count; ++row) {
      float* key = block + row * width;
      for (size_t i = 0; i < width; ++i) key[i] -= mean[i];
      if (kMixesChannels) Mix(key, width);
    }
    float largest = Largest(block, count * width), inverse = kLargestKey / largest;
    *steps++ = largest / kLargestKey;
    std::memset(words.get(), 0, kKeysPerBlock * num_words * sizeof(Word));
    for (size_t row = 0; row < count; ++row) {
      const float* from = block + row * width;
      auto* key = reinterpret_cast<Key*>(words.get() + row * num_words);
      for (size_t i = 0; i < width; ++i) key[i] = static_cast<Key>(Round(from[i] * inverse) + kZeroOfKeys);
    }
    for (size_t panel = 0; panel < RoundUp(count, kPanel); panel += kPanel, to += num_words * kPanel)
      for (size_t word = 0; word < num_words; ++word)
        for (size_t row = 0; row < kPanel; ++row) to[word * kPanel + row] = words[(panel + row) * num_words + word];
  }
}

void PackKeys(const Run& run, const Head& head, size_t depth, Key* keys, float* steps) {
  WithWidth(head.width, [&](auto width) { PackKeysOf(run, head, width, depth, keys, steps); });
}

void PackValues(const Head& head, Value* values, float* steps) {
  constexpr int kBits = 8 * sizeof(Value), kMask = (1 << kBits) - 1;
  float inverse[kMaxHeadDim];
  std::fill(steps, steps + head.width, kSmallest);
  for (size_t row = 0; row < head.num_rows; ++row)
    for (size_t c = 0; c < head.width; ++c) {
      float size = std::fabs(head.rows[row * head.pitch + c]);
      steps[c] = size > steps[c] ? size : steps[c];
    }
  for (size_t c = 0; c < head.width; ++c) inverse[c] = kLargestValue / steps[c], steps[c] /= kLargestValue;
  size_t num_rows = RoundUp(head.num_rows, kPanel), num_columns = RoundUp(head.width, 16);
  auto* words = reinterpret_cast<Word*>(values);
  for (size_t row = 0; row < num_rows; row += kGroup)
    for (size_t c0 = 0; c0 < num_columns; c0 += kPanel) {
      size_t width = std::min<size_t>(kPanel, num_columns - c0), filled = std::min<size_t>(width, head.width - c0);
      Word* to = words + (c0 * num_rows + row * width) / kGroup;
      std::memset(to, 0, width * sizeof(Word));
      for (size_t i = 0; i < kGroup && row + i < head.num_rows; ++i) {
        const float* from = head.rows + (row + i) * head.pitch + c0;
        for (size_t c = 0; c < filled; ++c)
          to[c] |= static_cast<Word>((Round(from[c] * inverse[c0 + c]) & kMask) << (kBits * i));
      }
    }
}

}  // namespace edge_vlm
