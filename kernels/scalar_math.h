// Scalar formulas in a form that compilers turn into vector code: no branches, no calls.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edge_vlm {

constexpr size_t kLine = 16;  // floats of a line of a cache

inline size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// Whole numbers in the order of floats, and back. Compilers may find the largest whole number with vector code, but not
// the largest float.
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

constexpr float kLog2 = 0.69314718f;  // the natural logarithm of 2

// 2^x with a relative error of 2e-7: 2^n times a polynomial of least error on [-1/2, 1/2].
inline float Exp2(float x) {
  constexpr float kCoefficients[] = {9.67151e-3f, 5.550734e-2f, 0.24022242f, 0.69314698f, 1.0f};
  x = x < -126.0f ? -126.0f : x;
  x = x > 126.0f ? 126.0f : x;
  float n = std::rint(x), f = x - n;
  float p = 1.32647e-3f;
  for (float coefficient : kCoefficients) p = p * f + coefficient;
  int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

// 0.5 x (1 + tanh(0.7978845608 (x + 0.044715 x^3))), which is x / (1 + e^(-2 * 0.7978845608 (x + 0.044715 x^3))).
inline float GeluTanh(float x) {
  constexpr float kFactor = -2 * 0.7978845608f / kLog2;
  return x / (1.0f + Exp2(kFactor * (x + 0.044715f * x * x * x)));
}

// The same to 7e-5, for values that a layer rounds to bytes: x times a half plus an odd polynomial of least error on
// [-4.5, 4.5], at whose ends the factor is 0 and 1.
inline float GeluTanhForBytes(float x) {
  constexpr float kEnd = 4.5f;
  constexpr float kCoefficients[] = {-3.69277872e-9f, 1.75024714e-7f, -4.81523253e-6f, 8.62532285e-5f,
                                     -1.0744429e-3f,  9.73009538e-3f, -6.61836535e-2f, 0.398647848f};
  float t = x < -kEnd ? -kEnd : x;
  t = t > kEnd ? kEnd : t;
  float p = 3.41302415e-11f;
  for (float coefficient : kCoefficients) p = p * (t * t) + coefficient;
  return x * (0.5f + t * p);
}

// x / (1 + e^(-1.702 x)).
inline float QuickGelu(float x) { return x / (1.0f + Exp2(-1.702f / kLog2 * x)); }

// 0.5 x (1 + erf(x / sqrt(2))) to 1.5e-7 |x|: erf by formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical
// Functions, with z = |x| / sqrt(2) and e^(-z^2) = 2^(-z^2 / log 2). The complement is half the factor of a negative x.
// z ends where that is 2^-64, which is nothing beside the error: far smaller ones make denormal numbers, each of which
// costs the next product a hundred cycles.
inline float Gelu(float x) {
  constexpr float kCoefficients[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
  constexpr float kEnd = 6.66f;  // the root of 64 log 2
  float z = std::fabs(x) * 0.70710678f;
  z = z > kEnd ? kEnd : z;
  float t = 1.0f / (1.0f + 0.3275911f * z), p = 1.061405429f;
  for (float coefficient : kCoefficients) p = p * t + coefficient;
  float complement = 0.5f * p * t * Exp2(-z * z / kLog2);
  return x * (x < 0 ? complement : 1.0f - complement);
}

}  // namespace edge_vlm
