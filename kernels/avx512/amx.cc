// Matrix tiles with AMX. This library also runs on processors without AMX, so only these functions use it. The comments
// give times on one core of Intel family 6 model 207.
#include "matrix.h"
#include "processor.h"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <type_traits>

#pragma clang attribute push(__attribute__((target("amx-tile,amx-int8,amx-bf16"))), apply_to = function)

namespace edge_vlm {
namespace {

// The shape stands in constant memory, because compilers have dropped stores to a shape on the stack.
struct alignas(64) Shape {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(Shape) == 64);
constexpr Shape kShape;

constexpr size_t kHalf = 16;  // rows of a tile, and columns of sums
constexpr size_t kLineBytes = 64;
constexpr size_t kPanelBytes = 4 * kLineBytes;  // a row of a panel has so many, and so have the sums of a row
constexpr size_t kWidth = 2 * kHalf;            // columns of a block of a layer
static_assert(kMatrixRows == 2 * kHalf && kMatrixQueries == kHalf && kMatrixBytes == kLineBytes && kPanel == 4 * kHalf);

enum class Kind { kU8S8, kS8U8, kBf16 };

// Adds products of tiles kA and kB to tile kTo.
template <Kind kKind, int kTo, int kA, int kB>
[[gnu::always_inline]] inline void Add() {
  if constexpr (kKind == Kind::kU8S8) _tile_dpbusd(kTo, kA, kB);
  if constexpr (kKind == Kind::kS8U8) _tile_dpbsud(kTo, kA, kB);
  if constexpr (kKind == Kind::kBf16) _tile_dpbf16ps(kTo, kA, kB);
}

[[gnu::always_inline]] inline void Clear() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Multiplies 32 rows by 32 columns of a panel, two tiles by two. between(step) runs while the products of a step are on
// their way.
template <Kind kKind, bool kIsBackward, class Between>
[[gnu::always_inline]] inline void Block(const uint8_t* a, size_t pitch, const uint8_t* b, size_t bytes, void* sums,
                                         const Between& between) {
  constexpr size_t kPitch = kWidth * sizeof(int32_t), kStep = kHalf * kPanelBytes;
  size_t num_steps = bytes / kLineBytes;
  Clear();
  if (kIsBackward) a += (num_steps - 1) * kLineBytes, b += (num_steps - 1) * kStep;
  for (size_t step = 0; step < num_steps; ++step) {
    _tile_loadd(4, a, pitch);
    _tile_loadd(6, b, kPanelBytes);
    Add<kKind, 0, 4, 6>();
    _tile_loadd(7, b + kLineBytes, kPanelBytes);
    Add<kKind, 1, 4, 7>();
    _tile_loadd(5, a + kHalf * pitch, pitch);
    Add<kKind, 2, 5, 6>();
    Add<kKind, 3, 5, 7>();
    a = kIsBackward ? a - kLineBytes : a + kLineBytes;
    b = kIsBackward ? b - kStep : b + kStep;
    between(step);
  }
  auto* to = static_cast<uint8_t*>(sums);
  _tile_stored(0, to, kPitch);
  _tile_stored(1, to + kLineBytes, kPitch);
  _tile_stored(2, to + kHalf * kPitch, kPitch);
  _tile_stored(3, to + kHalf * kPitch + kLineBytes, kPitch);
}

// Multiplies 16 rows by kTiles tiles of columns, whose rows lie side by side, `panel_pitch` bytes apart. Rows of sums
// are `sums_pitch` apart.
template <Kind kKind, int kTiles = 4>
[[gnu::always_inline]] inline void LowBlock(const uint8_t* a, size_t pitch, const uint8_t* b, size_t panel_pitch,
                                            size_t bytes, void* sums, size_t sums_pitch) {
  Clear();
  for (size_t k = 0; k < bytes; k += kLineBytes, b += kHalf * panel_pitch) {
    _tile_loadd(4, a + k, pitch);
    _tile_loadd(5, b, panel_pitch);
    Add<kKind, 0, 4, 5>();
    if constexpr (kTiles > 1) _tile_loadd(6, b + kLineBytes, panel_pitch);
    if constexpr (kTiles > 1) Add<kKind, 1, 4, 6>();
    if constexpr (kTiles > 2) _tile_loadd(7, b + 2 * kLineBytes, panel_pitch);
    if constexpr (kTiles > 2) Add<kKind, 2, 4, 7>();
    if constexpr (kTiles > 3) _tile_loadd(5, b + 3 * kLineBytes, panel_pitch);
    if constexpr (kTiles > 3) Add<kKind, 3, 4, 5>();
  }
  auto* to = static_cast<uint8_t*>(sums);
  _tile_stored(0, to, sums_pitch);
  if constexpr (kTiles > 1) _tile_stored(1, to + kLineBytes, sums_pitch);
  if constexpr (kTiles > 2) _tile_stored(2, to + 2 * kLineBytes, sums_pitch);
  if constexpr (kTiles > 3) _tile_stored(3, to + 3 * kLineBytes, sums_pitch);
}

// Applies what follows a layer to kColumns columns of one row, from column `first` of the panel on.
template <int kColumns, After kAfter, class Sum>
[[gnu::always_inline]] inline void End(const MatrixTask& t, const Sum* sums, size_t row, size_t first) {
  if (first >= t.num_columns) return;
  size_t place = row * t.out + first, count = t.num_columns - first;
  Columns columns{t.columns.steps + first, t.columns.sums + first, t.columns.bias + first, nullptr};
  Rounded rounded = std::is_same_v<Sum, int32_t> ? t.rounded[row] : Rounded{};
  if (count >= kColumns) {
    const float* residual = kAfter == After::kResidual ? t.residual + place : nullptr;
    return Finish<kColumns, kAfter>(sums, columns, rounded, 0, residual, t.result + place);
  }
  float added[kColumns] = {}, whole[kColumns];
  if (kAfter == After::kResidual) std::memcpy(added, t.residual + place, count * sizeof(float));
  Finish<kColumns, kAfter>(sums, columns, rounded, 0, added, whole);
  std::memcpy(t.result + place, whole, count * sizeof(float));
}

// Multiplies sixteen rows or fewer.
template <Kind kKind, After kAfter, class Sum>
void FewRows(const MatrixTask& t) {
  alignas(64) Sum sums[kHalf * kPanel];
  LowBlock<kKind>(static_cast<const uint8_t*>(t.rows), t.pitch, static_cast<const uint8_t*>(t.panel), kPanelBytes, t.bytes,
                  sums, kPanelBytes);
  for (size_t r = 0; r < t.num_rows; ++r) End<kPanel, kAfter>(t, sums + r * kPanel, r, 0);
}

// Multiplies blocks of 32 rows and 32 columns. The halves of the panel alternate (0 1, 1 0, 0 1, ...), and every second
// block walks the depth backwards, so that its first loads find in the first cache what the block before it read last.
// The ends of a block run between the products of the next, a few rows a step, and so do the fetches of what they will
// touch and of the next panel: a step's products take 22 ns, and few lines at a time do not hold them up.
template <Kind kKind, After kAfter, class Sum>
void ManyRows(const MatrixTask& t) {
  alignas(64) Sum sums[2][kMatrixRows * kWidth];
  auto* rows = static_cast<const uint8_t*>(t.rows);
  auto* panel = static_cast<const uint8_t*>(t.panel);
  auto* ahead = static_cast<const char*>(t.ahead);
  size_t num_blocks = 2 * RoundUp(t.num_rows, kMatrixRows) / kMatrixRows, num_steps = t.bytes / kLineBytes;
  size_t rows_per_step = (kMatrixRows + num_steps - 1) / num_steps;
  size_t num_lines = t.bytes / kLineBytes * kHalf * kPanelBytes / kLineBytes;
  size_t lines_per_step = (num_lines + num_blocks * num_steps - 1) / (num_blocks * num_steps);
  auto row_of = [](size_t block) { return block / 2 * kMatrixRows; };
  auto column_of = [](size_t block) { return ((block / 2 + block) & 1) * kWidth; };
  auto end = [&](size_t block, size_t from, size_t to) __attribute__((always_inline)) {
    size_t first = row_of(block), last = t.num_rows - first < to ? t.num_rows - first : to;
    for (size_t r = from; r < last; ++r)
      End<kWidth, kAfter>(t, sums[block & 1] + r * kWidth, first + r, column_of(block));
  };
  auto fetch = [&](size_t block, size_t from, size_t to) __attribute__((always_inline)) {
    for (size_t r = from; r < to; ++r)
      for (size_t c = 0; c < kWidth; c += kLine) {
        size_t place = (row_of(block) + r) * t.out + column_of(block) + c;
        if (kAfter == After::kResidual) __builtin_prefetch(t.residual + place);
        __builtin_prefetch(t.result + place, 1);
      }
  };
  for (size_t block = 0; block < num_blocks; ++block) {
    const uint8_t* a = rows + row_of(block) * t.pitch;
    const uint8_t* b = panel + column_of(block) * sizeof(Sum);
    auto between = [&](size_t step) __attribute__((always_inline)) {
      for (size_t i = 0; i < lines_per_step; ++i, ahead += kLineBytes) _mm_prefetch(ahead, _MM_HINT_T1);
      size_t from = step * rows_per_step;
      if (from >= kMatrixRows) return;
      fetch(block, from, from + rows_per_step);
      if (block) end(block - 1, from, from + rows_per_step < kMatrixRows ? from + rows_per_step : kMatrixRows);
    };
    if (block & 1)
      Block<kKind, true>(a, t.pitch, b, t.bytes, sums[1], between);
    else
      Block<kKind, false>(a, t.pitch, b, t.bytes, sums[0], between);
  }
  end(num_blocks - 1, 0, kMatrixRows);
}

template <Kind kKind, After kAfter, class Sum>
void Layer(const MatrixTask& t) {
  if (t.num_rows <= kHalf)
    FewRows<kKind, kAfter, Sum>(t);
  else
    ManyRows<kKind, kAfter, Sum>(t);
}

template <Kind kKind, class Sum>
void LayerOf(const MatrixTask& t) {
  ByAfter(t.after, [&](auto after) { Layer<kKind, decltype(after)::value, Sum>(t); });
}

// Whether CPUID names matrix tiles, XCR0 has their registers, and Linux gives them to this process. Linux refuses where
// a thread has a stack for signals that is too small for them.
bool IsAllowed() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAll = kBf16 | kTile | kInt8;
  constexpr unsigned kSavesTiles = kSavesAvx512 | 3u << 17;
  constexpr long kRequest = 0x1023, kTileData = 18;  // arch_prctl names them ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  Features has(kSavesTiles);
  if ((has.edx7 & kAll) != kAll) return false;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return false;
  if ((b & 0xffff) != 64 || (b >> 16) < 8 || (c & 0xffff) < 16) return false;  // bytes of a row, tiles, rows
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

}  // namespace

bool HasMatrix() {
  static const bool has = IsAllowed();
  return has;
}

// Set-up and release take 74 ns together; a task takes 50 us and more.
MatrixScope::MatrixScope() { _tile_loadconfig(&kShape); }
MatrixScope::~MatrixScope() { _tile_release(); }

void MultiplyMatrix(const MatrixTask& task) {
  if (task.is_bf16)
    LayerOf<Kind::kBf16, float>(task);
  else
    LayerOf<Kind::kU8S8, int32_t>(task);
}

void MatrixScores(const Query* a, size_t depth, const Key* panel, int32_t* scores, size_t pitch) {
  LowBlock<Kind::kS8U8>(reinterpret_cast<const uint8_t*>(a), depth, panel, kPanelBytes, depth, scores,
                        pitch * sizeof(int32_t));
}

template <int kTiles>
[[gnu::always_inline]] inline void AddValues(const Share* a, size_t pitch, const Value* panel, size_t depth,
                                             const float* scale, float* out, size_t out_pitch) {
  alignas(64) int32_t sums[kHalf * kTiles * kHalf];
  LowBlock<Kind::kU8S8, kTiles>(a, pitch, reinterpret_cast<const uint8_t*>(panel), kTiles * kLineBytes, depth, sums,
                                kTiles * kLineBytes);
  for (size_t r = 0; r < kHalf; ++r) {
    const __m512 factor = _mm512_set1_ps(scale[r]);
    for (int c = 0; c < kTiles; ++c) {
      float* to = out + r * out_pitch + kHalf * c;
      __m512 product = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (r * kTiles + c) * kHalf));
      _mm512_storeu_ps(to, _mm512_fmadd_ps(product, factor, _mm512_loadu_ps(to)));
    }
  }
}

void MatrixValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int columns, const float* scale,
                  float* out, size_t out_pitch) {
  switch (columns / static_cast<int>(kHalf)) {
    case 1: return AddValues<1>(a, pitch, panel, depth, scale, out, out_pitch);
    case 2: return AddValues<2>(a, pitch, panel, depth, scale, out, out_pitch);
    case 3: return AddValues<3>(a, pitch, panel, depth, scale, out, out_pitch);
    default: return AddValues<4>(a, pitch, panel, depth, scale, out, out_pitch);
  }
}

}  // namespace edge_vlm

#pragma clang attribute pop
