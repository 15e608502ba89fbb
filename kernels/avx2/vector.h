// A vector of floats with AVX2, and how many of them a row of a tile has.
#pragma once
#include <immintrin.h>

namespace edge_vlm {

using Vector = __m256;
constexpr int kMostVectors = 2;
inline Vector Load(const float* from) { return _mm256_loadu_ps(from); }
inline void Store(float* to, Vector values) { _mm256_storeu_ps(to, values); }
inline Vector Repeat(float value) { return _mm256_set1_ps(value); }
inline Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }

}  // namespace edge_vlm
