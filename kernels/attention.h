// Attention within frames, a block of keys at a time, so that memory never holds all scores.
#pragma once
#include "heads.h"
#include "run.h"

namespace edge_vlm {

struct Frames {
  size_t num_frames, num_patches;  // patches a frame
  size_t num_heads, head_dim;      // head_dim even, at most kMaxHeadDim
};

// One head's rows of a part of `packed` (see Attend): part 0 has queries, 1 keys, 2 values; offer: frame * num_heads +
// head.
inline Head HeadOf(const float* packed, const Frames& f, const float* cosines, const float* sines, size_t offer,
                   size_t part) {
  size_t hidden = f.num_heads * f.head_dim, pitch = 3 * hidden;
  size_t frame = offer / f.num_heads, number = offer % f.num_heads;
  const float* rows = packed + frame * f.num_patches * pitch + part * hidden + number * f.head_dim;
  return {rows, f.num_patches, pitch, f.head_dim, cosines, sines};
}

// packed (frames * patches, 3 * heads * head_dim): query, key and value side by side; cosines and sines
// (patches, head_dim / 2); result (frames * patches, heads * head_dim). Attend scales scores by head_dim^-0.5.
void Attend(const Run& run, const float* packed, const Frames& frames, const float* cosines, const float* sines,
            float* result);

// The same in float32. Only targets with kIsBestInFloats have it.
void AttendInFloats(const Run& run, const float* packed, const Frames& frames, const float* cosines, const float* sines,
                    float* result);

}  // namespace edge_vlm
