// Scalar formulas in a form that compilers turn into vector code: no branches, no calls.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edge_vlm {

inline size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// Whole numbers in the order of floats, and back: compilers find the largest of the former side by side, of floats they
// may not.
inline int32_t InOrder(int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
inline int32_t InOrder(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return InOrder(bits);
}
inline float FromOrder(int32_t order) {
  int32_t bits = InOrder(order);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// exp to about 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes expf).
inline float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float n = std::rint(x * 1.44269504f);
  float f = x - n * 0.693359375f;
  f = f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

constexpr float kLog2 = 0.69314718f;  // of 2, natural

inline float Exp2(float x) { return Exp(x * kLog2); }

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)).
inline float GeluTanh(float x) {
  float u = 0.7978845608f * (x + 0.044715f * x * x * x);
  return x / (1.0f + Exp(-2.0f * u));
}

}  // namespace edge_vlm
