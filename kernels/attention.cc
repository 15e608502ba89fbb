#include "attention.h"

#include "heads.h"
#include "scalar_math.h"

#include <algorithm>

namespace edge_vlm {
namespace {

constexpr size_t kTilesPerTask = 16, kQueriesPerTask = kTilesPerTask * kRows;
constexpr float kLowest = -1e30f, kMostAbove = 64;  // 2^64 times the shares' sums are far from the end of floats

// Queries of a tile and the softmax over the keys they have seen. Scores are exponents of 2.
struct alignas(32) Queries {
  float steps[kPaddedRows] = {};    // of a query; with that of a block of keys, what 1 of a product stands for
  int32_t zeros[kPaddedRows] = {};  // what the zero of the keys adds to each product
  float level[kPaddedRows] = {}, sums[kPaddedRows] = {};  // sums, and so far what comes out, are shares times 2^-level
};

// What a tile of queries makes of a block of keys.
struct alignas(64) Block {
  int32_t scores[kRows * kKeysPerBlock];
  Share shares[kRows * kKeysPerBlock];
  float scale[kPaddedRows];  // of the shares
};

// Brings levels up to scores that are far above them, and with them the `columns` of what has come out.
void Lift(Queries& q, const float (&high)[kPaddedRows], int rows, size_t columns, float* out) {
  for (int r = 0; r < rows; ++r) {
    if (high[r] <= q.level[r] + kMostAbove) continue;
    float keep = Exp2(q.level[r] - high[r]);
    q.level[r] = high[r];
    q.sums[r] *= keep;
    for (size_t c = 0; c < columns; ++c) out[r * columns + c] *= keep;
  }
}

// Products to shares. Those of a block are relative to its highest score, not to the highest of all: few bits then
// suffice, also for the many small shares beside a large one elsewhere.
void Softmax(Queries& q, int rows, float key_step, size_t num_keys, size_t columns, Block& block, float* out) {
  alignas(32) int32_t top[kPaddedRows] = {};
  alignas(32) float steps[kPaddedRows], high[kPaddedRows], sums[kPaddedRows] = {};
  for (int r = 0; r < kPaddedRows; ++r) steps[r] = q.steps[r] * key_step;
  for (size_t k = num_keys; k < RoundUp(num_keys, kPanel); ++k)
    for (int r = 0; r < rows; ++r) block.scores[r * kKeysPerBlock + k] = INT32_MIN;
  SoftmaxRows(block.scores, kKeysPerBlock, rows, num_keys, steps, block.shares, top, sums);
  bool is_above = false;
  for (int r = 0; r < kPaddedRows; ++r) {
    high[r] = static_cast<float>(top[r] - q.zeros[r]) * steps[r];
    is_above |= high[r] > q.level[r] + kMostAbove;
  }
  if (is_above) Lift(q, high, rows, columns, out);
  for (int r = 0; r < kPaddedRows; ++r) {
    block.scale[r] = Exp2(high[r] - q.level[r]);
    q.sums[r] += sums[r] * block.scale[r];
  }
}

}  // namespace

void Attend(const Run& run, const float* packed, const Frames& f, const float* cosines, const float* sines,
            float* result) {
  size_t hidden = f.num_heads * f.head_dim, num_offers = f.num_frames * f.num_heads;
  size_t depth = RoundUp(f.head_dim, 4), columns = RoundUp(f.head_dim, 16);
  size_t num_keys = RoundUp(f.num_patches, kPanel), num_blocks = RoundUp(num_keys, kKeysPerBlock) / kKeysPerBlock;
  // What one head of one frame offers to all queries.
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
    Queries tiles[kTilesPerTask];
    for (size_t q = 0; q < count; ++q) {
      Queries& tile = tiles[q / kRows];
      Query* query = rows.get() + q * depth;
      tile.level[q % kRows] = kLowest;
      tile.steps[q % kRows] = PackQuery(head(offer, 0), first + q, depth, query) * factor;
      int32_t sum = 0;
      for (size_t i = 0; i < depth; ++i) sum += query[i];
      tile.zeros[q % kRows] = kZeroOfKeys * sum;
    }
    std::memset(out.get(), 0, kQueriesPerTask * columns * sizeof(float));
    Block block;
    for (size_t k0 = 0; k0 < num_keys; k0 += kKeysPerBlock) {
      size_t padded = std::min(kKeysPerBlock, num_keys - k0), valid = std::min(padded, f.num_patches - k0);
      const Key* k_from = keys.get() + (offer * num_keys + k0) * depth;
      const Value* v_from = values.get() + offer * num_keys * columns;
      float key_step = key_steps[offer * num_blocks + k0 / kKeysPerBlock];
      for (size_t q0 = 0; q0 < count; q0 += kRows) {
        int num_rows = static_cast<int>(std::min<size_t>(kRows, count - q0));
        for (size_t k = 0; k < padded; k += kPanel)
          TileScores(rows.get() + q0 * depth, depth, k_from + k * depth, num_rows, block.scores + k, kKeysPerBlock);
        Softmax(tiles[q0 / kRows], num_rows, key_step, valid, columns, block, out.get() + q0 * columns);
        for (size_t c0 = 0; c0 < columns; c0 += kPanel) {
          int width = static_cast<int>(std::min<size_t>(kPanel, columns - c0));
          TileValues(block.shares, kKeysPerBlock, v_from + c0 * num_keys + k0 * width, padded, num_rows, width,
                     block.scale, out.get() + q0 * columns + c0, columns);
        }
      }
    }
    const float* steps = value_steps.get() + offer * columns;
    for (size_t q = 0; q < count; ++q) {
      float* to = result + (frame * f.num_patches + first + q) * hidden + number * f.head_dim;
      float inverse = 1.0f / tiles[q / kRows].sums[q % kRows];
      for (size_t c = 0; c < f.head_dim; ++c) to[c] = out[q * columns + c] * inverse * steps[c];
    }
  });
}

}  // namespace edge_vlm
