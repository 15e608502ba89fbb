#include "attention.h"

#include "numbers.h"
#include "tile.h"

#include <algorithm>

namespace edge_vlm {
namespace {

constexpr size_t kQueriesPerTask = 96;
constexpr size_t kKeysPerBlock = 256;  // keys and values of a block stay in the second cache
constexpr float kLowest = -1e30f;
constexpr size_t kLanes = 16;  // maxima taken side by side

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// Rotates the halves of one head, multiplies, and rounds.
void Rotate(const float* x, const float* cosines, const float* sines, size_t half, float factor, Element* to) {
  for (size_t i = 0; i < half; ++i) to[i] = ToElement((x[i] * cosines[i] - x[i + half] * sines[i]) * factor);
  for (size_t i = 0; i < half; ++i) to[i + half] = ToElement((x[i + half] * cosines[i] + x[i] * sines[i]) * factor);
}

// Of the rows' lengths; or, with `is_single`, of single numbers.
float Largest(const float* x, size_t count, size_t pitch, size_t width, bool is_single) {
  float largest = 1e-30f;
  for (size_t row = 0; row < count; ++row) {
    float size = 0;
    for (size_t i = 0; i < width; ++i) {
      float square = x[row * pitch + i] * x[row * pitch + i];
      size = !is_single ? size + square : square > size ? square : size;
    }
    largest = size > largest ? size : largest;
  }
  return std::sqrt(largest);
}

// What one element of a head's queries, keys and values stands for.
struct Steps {
  float query = 1, key = 1, value = 1;
};

// x: queries of one head, keys and values `hidden` and 2 * `hidden` behind. A product of a query and a key is at most
// that of their lengths, which rotation leaves as they are.
Steps FindSteps(const float* x, size_t count, size_t pitch, size_t hidden, size_t width, float factor) {
  if (!kHasSteps) return {};
  return {Largest(x, count, pitch, width, false) * factor / kLongestRow,
          Largest(x + hidden, count, pitch, width, false) / kLongestRow,
          Largest(x + 2 * hidden, count, pitch, width, true) / kLargestValue};
}

// What one instruction takes of a column: two channels of a key, two patches of a value.
struct Pair {
  Element first, second;
};

struct Widths {
  size_t depth, columns, keys;  // head_dim, rounded up to 16, and patches to 64
};

// Softmax over one block of scores for each of `count` queries, and what earlier blocks weigh now.
void Weigh(float* scores, size_t num_keys, size_t num_padded, int count, float* highest, float* sums, float* scales,
           Element* weights) {
  for (int r = 0; r < count; ++r) {
    float* row = scores + r * kKeysPerBlock;
    for (size_t k = num_keys; k < num_padded; ++k) row[k] = kLowest;
    float highs[kLanes];
    for (size_t i = 0; i < kLanes; ++i) highs[i] = highest[r];
    for (size_t k = 0; k < num_padded; k += kLanes)
      for (size_t i = 0; i < kLanes; ++i) highs[i] = row[k + i] > highs[i] ? row[k + i] : highs[i];
    float high = highs[0];
    for (size_t i = 1; i < kLanes; ++i) high = highs[i] > high ? highs[i] : high;
    scales[r] = std::exp2(highest[r] - high);
    sums[r] = sums[r] * scales[r] + Exp2Row(row, num_padded, high, weights + r * kKeysPerBlock);
    highest[r] = high;
  }
}

}  // namespace

void Attend(const Run& run, const float* packed, const Frames& f, const float* cosines, const float* sines,
            float* result) {
  size_t half = f.head_dim / 2, hidden = f.num_heads * f.head_dim, pitch = 3 * hidden;
  Widths w{f.head_dim, RoundUp(f.head_dim, 16), RoundUp(f.num_patches, kPanel)};
  size_t num_offers = f.num_frames * f.num_heads;
  // What one head of one frame offers to all queries: keys [key / 64][head_dim / 2][64][2], values
  // [value column / 64][key / 2][columns][2].
  Scratch<Element> keys(run, num_offers * w.keys * w.depth), values(run, num_offers * w.keys * w.columns);
  Scratch<Steps> steps(run, num_offers);
  float factor = 1.44269504f / std::sqrt(static_cast<float>(f.head_dim));  // exp(x) = 2^(x / ln 2)

  run.For(num_offers, [&](size_t offer) {
    size_t frame = offer / f.num_heads, head = offer % f.num_heads;
    const float* from = packed + frame * f.num_patches * pitch + head * f.head_dim;
    const Steps step = steps[offer] = FindSteps(from, f.num_patches, pitch, hidden, f.head_dim, factor);
    auto* k_to = reinterpret_cast<Pair*>(keys.get() + offer * w.keys * w.depth);
    auto* v_to = reinterpret_cast<Pair*>(values.get() + offer * w.keys * w.columns);
    Scratch<Pair> panel(run, kPanel * half);
    for (size_t p0 = 0; p0 < w.keys; p0 += kPanel, k_to += kPanel * half) {
      size_t count = std::min<size_t>(kPanel, f.num_patches - p0);
      for (size_t p = 0; p < count; ++p)
        Rotate(from + (p0 + p) * pitch + hidden, cosines + (p0 + p) * half, sines + (p0 + p) * half, half,
               1.0f / step.key, reinterpret_cast<Element*>(panel.get() + p * half));
      std::memset(panel.get() + count * half, 0, (kPanel - count) * half * sizeof(Pair));
      for (size_t pair = 0; pair < half; ++pair)
        for (size_t p = 0; p < kPanel; ++p) k_to[pair * kPanel + p] = panel[p * half + pair];
    }
    float inverse = 1.0f / step.value;
    for (size_t p = 0; p < w.keys; p += 2) {
      const float* even = from + p * pitch + 2 * hidden;
      bool has_even = p < f.num_patches, has_odd = p + 1 < f.num_patches;
      for (size_t c0 = 0; c0 < w.columns; c0 += kPanel) {
        size_t width = std::min<size_t>(kPanel, w.columns - c0), filled = std::min<size_t>(width, f.head_dim - c0);
        Pair* to = v_to + c0 * w.keys / 2 + p / 2 * width;
        std::memset(to, 0, width * sizeof(Pair));
        if (has_odd)
          for (size_t c = 0; c < filled; ++c)
            to[c] = {ToElement(even[c0 + c] * inverse), ToElement(even[pitch + c0 + c] * inverse)};
        else if (has_even)
          for (size_t c = 0; c < filled; ++c) to[c] = {ToElement(even[c0 + c] * inverse), 0};
      }
    }
  });

  size_t query_tasks = (f.num_patches + kQueriesPerTask - 1) / kQueriesPerTask;
  run.For(num_offers * query_tasks, [&](size_t task) {
    size_t offer = task / query_tasks, first = task % query_tasks * kQueriesPerTask;
    size_t frame = offer / f.num_heads, head = offer % f.num_heads;
    size_t count = std::min(kQueriesPerTask, f.num_patches - first);
    const Element* k_from = keys.get() + offer * w.keys * w.depth;
    const Element* v_from = values.get() + offer * w.keys * w.columns;
    Scratch<Element> queries(run, kQueriesPerTask * w.depth), weights(run, kRows * kKeysPerBlock);
    const Steps step = steps[offer];
    Scratch<float> out(run, kQueriesPerTask * w.columns), scores(run, kRows * kKeysPerBlock);
    float highest[kQueriesPerTask], sums[kQueriesPerTask], scales[kRows];
    for (size_t q = 0; q < count; ++q) {
      const float* row = packed + (frame * f.num_patches + first + q) * pitch + head * f.head_dim;
      Rotate(row, cosines + (first + q) * half, sines + (first + q) * half, half,
             factor / step.query, queries.get() + q * w.depth);
      highest[q] = kLowest, sums[q] = 0;
    }
    std::memset(out.get(), 0, kQueriesPerTask * w.columns * sizeof(float));
    for (size_t k0 = 0; k0 < w.keys; k0 += kKeysPerBlock) {
      size_t padded = std::min(kKeysPerBlock, w.keys - k0), valid = std::min(padded, f.num_patches - k0);
      for (size_t q0 = 0; q0 < count; q0 += kRows) {
        int rows = static_cast<int>(std::min<size_t>(kRows, count - q0));
        for (size_t k = 0; k < padded; k += kPanel)
          TileElements(queries.get() + q0 * w.depth, w.depth, k_from + (k0 + k) * w.depth, w.depth, rows, kPanel,
                       step.query * step.key, scores.get() + k, kKeysPerBlock, false);
        Weigh(scores.get(), valid, padded, rows, highest + q0, sums + q0, scales, weights.get());
        float* to = out.get() + q0 * w.columns;
        for (int r = 0; r < rows; ++r)
          for (size_t c = 0; c < w.columns; ++c) to[r * w.columns + c] *= scales[r];
        for (size_t c0 = 0; c0 < w.columns; c0 += kPanel) {
          size_t width = std::min<size_t>(kPanel, w.columns - c0);
          TileElements(weights.get(), kKeysPerBlock, v_from + c0 * w.keys + k0 * width, padded, rows,
                       static_cast<int>(width), step.value / kLargestWeight, to + c0, w.columns, true);
        }
      }
    }
    for (size_t q = 0; q < count; ++q) {
      float* to = result + (frame * f.num_patches + first + q) * hidden + head * f.head_dim;
      float inverse = 1.0f / sums[q];
      for (size_t c = 0; c < f.head_dim; ++c) to[c] = out[q * w.columns + c] * inverse;
    }
  });
}

}  // namespace edge_vlm
