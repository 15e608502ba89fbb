// One layer as llama.cpp multiplies it on 64-bit Arm, for `python -m tests.arm.instructions`: rows to the weights'
// partner type, then the product of llamafile/sgemm.cpp. A vision tower's weights are not repacked there.
//
// llama TYPE ROWS IN OUT RUNS, where TYPE is q8_0 or f16.
#include "ggml-cpu-impl.h"
#include "llamafile/sgemm.h"
#include "quants.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

// What the product asks of the thread pool; one thread waits for nobody.
extern "C" {
void ggml_barrier(struct ggml_threadpool*) {}
static int chunk;
void ggml_threadpool_chunk_set(struct ggml_threadpool*, int value) { chunk = value; }
int ggml_threadpool_chunk_add(struct ggml_threadpool*, int value) {
  int before = chunk;
  chunk += value;
  return before;
}
void ggml_abort(const char*, int, const char*, ...) { abort(); }
void ggml_log_internal(enum ggml_log_level, const char*, ...) {}
}

template <class T>
static T* Array(size_t count) {  // never freed; the C++ library is not linked
  return static_cast<T*>(calloc(count, sizeof(T)));
}

static float* Noise(size_t count) {
  static unsigned state = 1;
  float* values = Array<float>(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
  return values;
}

static void Convert(bool is_q8, const float* from, size_t rows, size_t in, uint8_t* to, size_t row_bytes) {
  for (size_t r = 0; r < rows; ++r, from += in, to += row_bytes) {
    if (is_q8) {
      quantize_row_q8_0(from, to, static_cast<int64_t>(in));
    } else {
      auto* halves = reinterpret_cast<__fp16*>(to);
      for (size_t i = 0; i < in; ++i) halves[i] = static_cast<__fp16>(from[i]);
    }
  }
}

int main(int count, char** words) {
  if (count != 6) return 2;
  bool is_q8 = !strcmp(words[1], "q8_0");
  size_t rows = atoi(words[2]), in = atoi(words[3]), out = atoi(words[4]);
  size_t row_bytes = is_q8 ? in / QK8_0 * sizeof(block_q8_0) : in * 2;
  int type = is_q8 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
  float *weights = Noise(out * in), *x = Noise(rows * in), *result = Array<float>(rows * out);
  auto *stored = Array<uint8_t>(out * row_bytes), *left = Array<uint8_t>(rows * row_bytes);
  Convert(is_q8, weights, out, in, stored, row_bytes);
  ggml_compute_params params = {};
  params.nth = 1;
  int64_t length = static_cast<int64_t>(is_q8 ? in / QK8_0 : in);
  for (int run = atoi(words[5]); run > 0; --run) {
    Convert(is_q8, x, rows, in, left, row_bytes);
    if (!llamafile_sgemm(&params, out, rows, length, stored, length, left, length, result, out, type, type, GGML_TYPE_F32))
      return 3;
  }
  double error = 0, size = 0;  // of the last column
  for (size_t r = 0; r < rows; ++r) {
    double exact = 0, found = result[r * out + out - 1];
    for (size_t k = 0; k < in; ++k) exact += static_cast<double>(x[r * in + k]) * weights[(out - 1) * in + k];
    error += (found - exact) * (found - exact), size += exact * exact;
  }
  fprintf(stderr, "%g\n", error / size);
  return error < 1e-3 * size ? 0 : 4;
}
