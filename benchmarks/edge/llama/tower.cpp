// The three calls the benchmark makes of llama.cpp: load an mmproj file, encode pixels, write a file in Q4_K_M.
//
// mtmd's public interface takes pictures of bytes and prepares them itself; its inner one takes the pixels every engine gets.

#include <algorithm>
#include <vector>

#include "clip-impl.h"
#include "clip.h"
#include "llama.h"

extern "C" {

// nullptr where the file is not loaded; the log on stderr says why. Flash attention as mtmd chooses it.
void *tower_load(const char *path) {
    clip_context_params params{};
    params.flash_attn_type = CLIP_FLASH_ATTN_TYPE_AUTO;
    params.image_min_tokens = params.image_max_tokens = -1;
    return clip_init(path, params).ctx_v;
}

// pixels: float32 (frames, height, width, 3), normalised, in groups of two frames (one, for a still picture).
// rows: float32 (groups * tokens, width of clip_n_mmproj_embd): the main output, then every level. False where it fails.
bool tower_encode(void *tower, int threads, const float *pixels, int frames, int height, int width, float *rows) {
    const size_t size = size_t(height) * width * 3;
    for (int first = 0; first < frames; first += 2) {
        clip_image_f32_batch group;
        for (int frame = first; frame < std::min(first + 2, frames); frame++) {
            clip_image_f32 &image = group.entries.emplace_back();
            image.set_size({width, height}, false, false);
            image.cpy_buf(std::vector<float>(pixels + frame * size, pixels + (frame + 1) * size));
        }
        auto *context = static_cast<clip_ctx *>(tower);
        const size_t tokens = clip_n_output_tokens(context, &group.entries[0]);
        std::vector<float> found(tokens * clip_n_mmproj_embd(context));
        if (!clip_image_batch_encode(context, threads, &group, found)) return false;
        rows = std::copy(found.begin(), found.end(), rows);
    }
    return true;
}

// 0 where `to` was written, in the mix of Q4_K and Q6_K that its makers name Q4_K_M.
int tower_quantise(const char *from, const char *to, int threads) {
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = LLAMA_FTYPE_MOSTLY_Q4_K_M;
    params.nthread = threads;
    return int(llama_model_quantize(from, to, &params));
}
}
