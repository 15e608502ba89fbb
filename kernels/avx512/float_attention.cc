// Attention in float32 with AVX-512: tiles of queries against panels of keys, and of shares against panels of values.
#include "attention.h"

#include "with_count.h"
#include "float_tile.h"
#include "heads.h"

#include <algorithm>
#include <cstring>

namespace edge_vlm {
namespace {

constexpr size_t kTilesPerTask = 16, kQueriesPerTask = kTilesPerTask * kRows;
constexpr float kMostAbove = 64;  // 2^64 times the sums of shares is far below the largest float

// A tile of queries and the softmax over the keys they have seen. Scores are exponents of 2.
struct alignas(64) Queries {
  float sums[kRows][kLanes];  // the shares' sums, by lane, times 2^-level; the output so far has the same factor
  float level[kRows];
};

// 2^x, as in scalar_math.h.
Vector Exp2(Vector x) {
  constexpr float kCoefficients[] = {9.67151e-3f, 5.550734e-2f, 0.24022242f, 0.69314698f, 1.0f};
  Vector n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
  Vector p = Repeat(1.32647e-3f);
  for (float coefficient : kCoefficients) p = MultiplyAdd(p, f, Repeat(coefficient));
  return _mm512_scalef_ps(p, n);
}

// Turns scores of one query into shares in their place, and those from `count` on, to the next multiple of kLanes, into
// zeros. The first block's highest score is the level, which rises where later scores are far above it.
void Softmax(float* scores, size_t count, bool is_first, float* sums, float* level, float* out, size_t columns) {
  Vector highest = Repeat(-1e30f);
  size_t padded = RoundUp(count, kLanes);
  for (size_t i = count; i < padded; ++i) scores[i] = -1e30f;
  for (size_t i = 0; i < padded; i += kLanes) highest = _mm512_max_ps(highest, Load(scores + i));
  if (is_first) {
    *level = _mm512_reduce_max_ps(highest);
    Store(sums, Repeat(0));
  } else if (_mm512_cmp_ps_mask(highest, Repeat(*level + kMostAbove), _CMP_GT_OQ)) {
    float lifted = _mm512_reduce_max_ps(highest);
    Vector keep = Exp2(Repeat(*level - lifted));
    *level = lifted;
    Store(sums, _mm512_mul_ps(Load(sums), keep));
    for (size_t c = 0; c < columns; c += kLanes) Store(out + c, _mm512_mul_ps(Load(out + c), keep));
  }
  Vector zero = Repeat(*level), sum = Load(sums);
  for (size_t i = 0; i < padded; i += kLanes) {
    Vector share = Exp2(_mm512_sub_ps(Load(scores + i), zero));
    sum = _mm512_add_ps(sum, share);
    Store(scores + i, share);
  }
  Store(sums, sum);
}

// Writes keys [row / 64][depth][64]; Softmax never reads scores of rows behind the last key.
void PackKeys(const Head& head, size_t depth, float* panels) {
  float key[kMaxHeadDim + kFloatGroup] = {};
  for (size_t row = 0; row < head.num_rows; ++row) {
    float* to = panels + row / kPanel * kPanel * depth + row % kPanel;
    Rotate(head, row, key);
    for (size_t i = 0; i < depth; ++i) to[i * kPanel] = key[i];
  }
}

// Writes values [column / 64][rows][columns], rows rounded up to 64 and columns to 16. Rows behind the last have a
// share of zero, which needs a finite number.
void PackValues(const Head& head, float* panels) {
  size_t num_rows = RoundUp(head.num_rows, kPanel), num_columns = RoundUp(head.width, kLanes);
  for (size_t c = 0; c < head.width; c += kPanel) {
    size_t columns = std::min<size_t>(kPanel, num_columns - c), count = std::min<size_t>(kPanel, head.width - c);
    float* to = panels + c * num_rows;
    for (size_t row = 0; row < head.num_rows; ++row) {
      const float* from = head.rows + row * head.pitch + c;
      PrefetchRow(from, head.pitch, count);
      std::memcpy(to + row * columns, from, count * sizeof(float));
    }
    std::memset(to + head.num_rows * columns, 0, (num_rows - head.num_rows) * columns * sizeof(float));
  }
}

}  // namespace

void AttendInFloats(const Run& run, const float* packed, const Frames& f, const float* cosines, const float* sines,
                    float* result) {
  size_t hidden = f.num_heads * f.head_dim, num_offers = f.num_frames * f.num_heads;
  size_t depth = RoundUp(f.head_dim, kFloatGroup), columns = RoundUp(f.head_dim, kLanes);
  size_t num_keys = RoundUp(f.num_patches, kPanel);
  // An offer: the keys and values that one head of one frame offers to all its queries.
  Scratch<float> keys(run, num_offers * num_keys * depth), values(run, num_offers * num_keys * columns);
  auto head = [&](size_t offer, size_t part) { return HeadOf(packed, f, cosines, sines, offer, part); };
  run.For(num_offers, [&](size_t offer) {
    PackKeys(head(offer, 1), depth, keys.get() + offer * num_keys * depth);
    PackValues(head(offer, 2), values.get() + offer * num_keys * columns);
  });

  float factor = 1.0f / (kLog2 * std::sqrt(static_cast<float>(f.head_dim)));  // exp(x) = 2^(x / ln 2)
  size_t num_tasks = (f.num_patches + kQueriesPerTask - 1) / kQueriesPerTask;
  run.For(num_offers * num_tasks, [&](size_t task) {
    size_t offer = task / num_tasks, first = task % num_tasks * kQueriesPerTask;
    size_t frame = offer / f.num_heads, number = offer % f.num_heads;
    size_t count = std::min(kQueriesPerTask, f.num_patches - first);
    Scratch<float> queries(run, kQueriesPerTask * depth), out(run, kQueriesPerTask * columns);
    Queries tiles[kTilesPerTask];
    std::memset(out.get(), 0, kQueriesPerTask * columns * sizeof(float));
    for (size_t q = 0; q < count; ++q) {
      float* query = queries.get() + q * depth;
      Rotate(head(offer, 0), first + q, query);
      for (size_t i = 0; i < f.head_dim; ++i) query[i] *= factor;
      for (size_t i = f.head_dim; i < depth; ++i) query[i] = 0;
    }
    alignas(64) float scores[kRows * kKeysPerBlock];
    for (size_t k0 = 0; k0 < num_keys; k0 += kKeysPerBlock) {
      size_t valid = std::min(kKeysPerBlock, f.num_patches - k0), padded = RoundUp(valid, kLanes);
      const float* k_from = keys.get() + (offer * num_keys + k0) * depth;
      const float* v_from = values.get() + offer * num_keys * columns;
      for (size_t q0 = 0; q0 < count; q0 += kRows) {
        Queries& tile = tiles[q0 / kRows];
        float* to = out.get() + q0 * columns;
        for (size_t k = 0; k < padded; k += kPanel)
          WithCount<kMostVectors>(static_cast<int>(std::min<size_t>(kPanel, padded - k) / kLanes), [&](auto vectors) {
            MultiplyTile<vectors>(queries.get() + q0 * depth, depth, kFloatGroup, k_from + k * depth, kPanel, depth,
                                  scores + k, kKeysPerBlock, false);
          });
        for (size_t r = 0; r < kRows; ++r)
          Softmax(scores + r * kKeysPerBlock, valid, k0 == 0, tile.sums[r], tile.level + r, to + r * columns, columns);
        for (size_t c = 0; c < columns; c += kPanel)
          WithCount<kMostVectors>(static_cast<int>((columns - c) / kLanes), [&](auto vectors) {
            constexpr size_t kWidth = vectors * kLanes;
            MultiplyTile<vectors>(scores, kKeysPerBlock, kFloatGroup, v_from + c * num_keys + k0 * kWidth, kWidth,
                                  padded, to + c, columns, true);
          });
      }
    }
    for (size_t q = 0; q < count; ++q) {
      float* to = result + (frame * f.num_patches + first + q) * hidden + number * f.head_dim;
      float inverse = 1.0f / _mm512_reduce_add_ps(Load(tiles[q / kRows].sums[q % kRows]));
      for (size_t c = 0; c < f.head_dim; ++c) to[c] = out[q * columns + c] * inverse;
    }
  });
}

}  // namespace edge_vlm
