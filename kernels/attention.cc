#include "attention.h"

#include "heads.h"
#include "matrix.h"
#include "scalar_math.h"

#include <algorithm>

namespace edge_vlm {
namespace {

constexpr float kLowest = -1e30f, kMostAbove = 64;  // 2^64 times the sums of shares is far below the largest float

// A way to multiply a group of kCount queries, whose numbers stand in vectors of kPadded.
struct OnVectors {
  static constexpr int kCount = kRows, kPadded = kPaddedRows;
  static constexpr size_t kGroupsPerTask = 16, kDepthUnit = 4;
  struct Scope {};

  static void Scores(const Query* a, size_t depth, const Key* panel, int rows, int32_t* scores) {
    TileScores(a, depth, panel, rows, scores, kKeysPerBlock);
  }
  static void Softmax(const int32_t* scores, int rows, size_t count, const float* steps, Share* shares, int32_t* highest,
                      float* sums) {
    SoftmaxRows(scores, kKeysPerBlock, rows, count, steps, shares, highest, sums);
  }
  static void Values(const Share* a, const Value* panel, size_t depth, int rows, int columns, const float* scale,
                     float* out, size_t pitch) {
    TileValues(a, kKeysPerBlock, panel, depth, rows, columns, scale, out, pitch);
  }
};

struct OnMatrix {  // where kMayHaveMatrix
  [[maybe_unused]] static constexpr int kCount = kMatrixQueries, kPadded = kMatrixQueries;
  [[maybe_unused]] static constexpr size_t kGroupsPerTask = 10, kDepthUnit = kMatrixBytes;
  using Scope = MatrixScope;

  static void Scores(const Query* a, size_t depth, const Key* panel, int, int32_t* scores) {
    MatrixScores(a, depth, panel, scores, kKeysPerBlock);
  }
  static void Softmax(const int32_t* scores, int, size_t count, const float* steps, Share* shares, int32_t* highest,
                      float* sums) {
    MatrixSoftmax(scores, kKeysPerBlock, count, steps, shares, highest, sums);
  }
  static void Values(const Share* a, const Value* panel, size_t depth, int, int columns, const float* scale, float* out,
                     size_t pitch) {
    MatrixValues(a, kKeysPerBlock, panel, depth, columns, scale, out, pitch);
  }
};

// Queries of a group and the softmax over the keys they have seen. Scores are exponents of 2.
template <class Way>
struct alignas(64) Queries {
  float steps[Way::kPadded] = {};    // a query's step; times that of a block of keys, it is the value of 1 in a product
  int32_t zeros[Way::kPadded] = {};  // the zero of the keys adds this to each product
  float level[Way::kPadded] = {};
  float sums[Way::kPadded] = {};  // the shares' sums times 2^-level; the output so far has the same factor
};

// What a group of queries makes of a block of keys.
template <class Way>
struct alignas(64) Block {
  int32_t scores[Way::kCount * kKeysPerBlock];
  Share shares[Way::kCount * kKeysPerBlock];
  float scale[Way::kPadded];  // 2^(highest score of the block - level), by which its shares count
};

// Raises levels to scores that are far above them, and scales the output so far, of `columns` columns, to match.
template <class Way>
void Lift(Queries<Way>& q, const float* high, int rows, size_t columns, float* out) {
  for (int r = 0; r < rows; ++r) {
    if (high[r] <= q.level[r] + kMostAbove) continue;
    float keep = Exp2(q.level[r] - high[r]);
    q.level[r] = high[r];
    q.sums[r] *= keep;
    for (size_t c = 0; c < columns; ++c) out[r * columns + c] *= keep;
  }
}

// Turns products into shares. A block's shares are relative to its own highest score, not to the highest of all, so few
// bits suffice, also for many small shares beside a large one in another block.
template <class Way>
void Softmax(Queries<Way>& q, int rows, float key_step, size_t num_keys, size_t columns, Block<Way>& block, float* out) {
  constexpr int kPadded = Way::kPadded;
  alignas(64) int32_t top[kPadded] = {};
  alignas(64) float steps[kPadded], high[kPadded], sums[kPadded] = {};
  for (int r = 0; r < kPadded; ++r) steps[r] = q.steps[r] * key_step;
  for (size_t k = num_keys; k < RoundUp(num_keys, kPanel); ++k)
    for (int r = 0; r < rows; ++r) block.scores[r * kKeysPerBlock + k] = INT32_MIN;
  Way::Softmax(block.scores, rows, num_keys, steps, block.shares, top, sums);
  bool is_above = false;
  for (int r = 0; r < kPadded; ++r) {
    high[r] = static_cast<float>(top[r] - q.zeros[r]) * steps[r];
    is_above |= high[r] > q.level[r] + kMostAbove;
  }
  if (is_above) Lift(q, high, rows, columns, out);
  for (int r = 0; r < kPadded; ++r) {
    block.scale[r] = Exp2(high[r] - q.level[r]);
    q.sums[r] += sums[r] * block.scale[r];
  }
}

template <class Way>
void AttendOn(const Run& run, const float* packed, const Frames& f, const float* cosines, const float* sines,
              float* result) {
  constexpr size_t kQueriesPerTask = Way::kGroupsPerTask * Way::kCount;
  size_t hidden = f.num_heads * f.head_dim, num_offers = f.num_frames * f.num_heads;
  size_t depth = RoundUp(f.head_dim, Way::kDepthUnit), columns = RoundUp(f.head_dim, 16);
  size_t num_keys = RoundUp(f.num_patches, kPanel), num_blocks = RoundUp(num_keys, kKeysPerBlock) / kKeysPerBlock;
  // An offer: the keys and values that one head of one frame offers to all its queries.
  Scratch<Key> keys(run, num_offers * num_keys * depth);
  Scratch<Value> values(run, num_offers * num_keys * columns);
  Scratch<float> key_steps(run, num_offers * num_blocks), value_steps(run, num_offers * columns);
  auto head = [&](size_t offer, size_t part) { return HeadOf(packed, f, cosines, sines, offer, part); };
  run.For(num_offers, [&](size_t offer) {
    PackKeys(run, head(offer, 1), depth, keys.get() + offer * num_keys * depth, key_steps.get() + offer * num_blocks);
    PackValues(head(offer, 2), values.get() + offer * num_keys * columns, value_steps.get() + offer * columns);
  });

  float factor = 1.0f / (kLog2 * std::sqrt(static_cast<float>(f.head_dim)));  // exp(x) = 2^(x / ln 2)
  size_t num_tasks = (f.num_patches + kQueriesPerTask - 1) / kQueriesPerTask;
  run.For(num_offers * num_tasks, [&](size_t task) {
    size_t offer = task / num_tasks, first = task % num_tasks * kQueriesPerTask;
    size_t frame = offer / f.num_heads, number = offer % f.num_heads;
    size_t count = std::min(kQueriesPerTask, f.num_patches - first);
    Scratch<Query> rows(run, kQueriesPerTask * depth);
    Scratch<float> out(run, kQueriesPerTask * columns);
    Queries<Way> groups[Way::kGroupsPerTask];
    for (size_t q = 0; q < count; ++q) {
      Queries<Way>& group = groups[q / Way::kCount];
      Query* query = rows.get() + q * depth;
      group.level[q % Way::kCount] = kLowest;
      group.steps[q % Way::kCount] = PackQuery(head(offer, 0), first + q, depth, query) * factor;
      int32_t sum = 0;
      for (size_t i = 0; i < depth; ++i) sum += query[i];
      group.zeros[q % Way::kCount] = kZeroOfKeys * sum;
    }
    std::memset(out.get(), 0, kQueriesPerTask * columns * sizeof(float));
    Block<Way> block;
    [[maybe_unused]] typename Way::Scope scope;
    for (size_t k0 = 0; k0 < num_keys; k0 += kKeysPerBlock) {
      size_t padded = std::min(kKeysPerBlock, num_keys - k0), valid = std::min(padded, f.num_patches - k0);
      const Key* k_from = keys.get() + (offer * num_keys + k0) * depth;
      const Value* v_from = values.get() + offer * num_keys * columns;
      float key_step = key_steps[offer * num_blocks + k0 / kKeysPerBlock];
      for (size_t q0 = 0; q0 < count; q0 += Way::kCount) {
        int num_rows = static_cast<int>(std::min<size_t>(Way::kCount, count - q0));
        float* to = out.get() + q0 * columns;
        for (size_t k = 0; k < padded; k += kPanel)
          Way::Scores(rows.get() + q0 * depth, depth, k_from + k * depth, num_rows, block.scores + k);
        Softmax(groups[q0 / Way::kCount], num_rows, key_step, valid, columns, block, to);
        for (size_t c0 = 0; c0 < columns; c0 += kPanel) {
          int width = static_cast<int>(std::min<size_t>(kPanel, columns - c0));
          Way::Values(block.shares, v_from + c0 * num_keys + k0 * width, padded, num_rows, width, block.scale, to + c0,
                      columns);
        }
      }
    }
    const float* steps = value_steps.get() + offer * columns;
    for (size_t q = 0; q < count; ++q) {
      float* to = result + (frame * f.num_patches + first + q) * hidden + number * f.head_dim;
      float inverse = 1.0f / groups[q / Way::kCount].sums[q % Way::kCount];
      for (size_t c = 0; c < f.head_dim; ++c) to[c] = out[q * columns + c] * inverse * steps[c];
    }
  });
}

}  // namespace

void Attend(const Run& run, const float* packed, const Frames& frames, const float* cosines, const float* sines,
            float* result) {
  if constexpr (kMayHaveMatrix)
    if (HasMatrix()) return AttendOn<OnMatrix>(run, packed, frames, cosines, sines, result);
  AttendOn<OnVectors>(run, packed, frames, cosines, sines, result);
}

}  // namespace edge_vlm
