// Attention within frames, a block of keys at a time, so scores are never whole.
#pragma once
#include "pool.h"

namespace edge_vlm {

struct Frames {
  size_t num_frames, num_patches;  // patches a frame
  size_t num_heads, head_dim;      // head_dim even, at most kMaxHeadDim
};

// packed (frames * patches, 3 * heads * head_dim): query, key and value side by side; cosines and sines
// (patches, head_dim / 2); result (frames * patches, heads * head_dim). Scores are scaled by head_dim^-0.5.
void Attend(const Run& run, const float* packed, const Frames& frames, const float* cosines, const float* sines,
            float* result);

// The same in float32, where kIsBestInFloats; nothing elsewhere.
void AttendInFloats(const Run& run, const float* packed, const Frames& frames, const float* cosines, const float* sines,
                    float* result);

}  // namespace edge_vlm
