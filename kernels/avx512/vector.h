// A vector of floats with AVX-512, and how many of them a row of a tile has.
#pragma once
#include <immintrin.h>

namespace edge_vlm {

using Vector = __m512;
constexpr int kMostVectors = 4;
inline Vector Load(const float* from) { return _mm512_loadu_ps(from); }
inline void Store(float* to, Vector values) { _mm512_storeu_ps(to, values); }
inline Vector Repeat(float value) { return _mm512_set1_ps(value); }
inline Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }

}  // namespace edge_vlm
