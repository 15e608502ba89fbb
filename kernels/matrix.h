// Products on matrix tiles, registers of 16 rows of 64 bytes each that one instruction multiplies: Intel's AMX, from
// Sapphire Rapids on. They take the panels of tile.h as they are, and sums of bytes are the same to the last bit.
// Targets with kMayHaveMatrix have all of this; a processor or a system without matrix tiles uses the tiles of tile.h.
#pragma once
#include "epilogue.h"
#include "prologue.h"
#include "tile.h"

#include <cstddef>
#include <cstdint>

namespace edge_vlm {

constexpr size_t kMatrixRows = 32;     // rows of a block of sums of a layer
constexpr int kMatrixQueries = 16;     // rows of a block of attention; more would not fit the first cache
constexpr size_t kMatrixBytes = 64;    // one row of a tile; depths are multiples of it, and rows lie so much further apart
constexpr Cut kCutMatrix = {256, 8, 256, kUncut};

// Whether the processor has matrix tiles and the system allows them. A process asks once.
bool HasMatrix();

// The shape of tiles belongs to a thread, and other libraries change it: each task that multiplies sets it, and gives
// the registers up.
class MatrixScope {
 public:
  MatrixScope();
  ~MatrixScope();
  MatrixScope(const MatrixScope&) = delete;
  MatrixScope& operator=(const MatrixScope&) = delete;
};

// One panel of a layer times some rows, and what follows the layer.
struct MatrixTask {
  const void *rows, *panel;  // bytes, or pairs of bf16; it reads rows up to the next multiple of kMatrixRows
  const void* ahead;         // the next panel, which the product fetches on the way
  size_t pitch, bytes, num_rows;  // bytes from row to row; bytes a row has, a multiple of kMatrixBytes
  Columns columns;
  size_t num_columns;        // up to kPanel
  const Rounded* rounded;    // one for each row of bytes
  const float* residual;     // null, or like result
  float* result;             // rows `out` apart
  size_t out;
  After after;
  bool is_bf16;
};
void MultiplyMatrix(const MatrixTask& task);

// What TileScores, SoftmaxRows and TileValues do, for kMatrixQueries rows, all of which these read and write. The depth
// of scores is a multiple of kMatrixBytes.
void MatrixScores(const Query* a, size_t depth, const Key* panel, int32_t* scores, size_t pitch);
void MatrixSoftmax(const int32_t* scores, size_t pitch, size_t count, const float* steps, Share* shares,
                   int32_t* highest, float* sums);
void MatrixValues(const Share* a, size_t pitch, const Value* panel, size_t depth, int columns, const float* scale,
                  float* out, size_t out_pitch);

}  // namespace edge_vlm
