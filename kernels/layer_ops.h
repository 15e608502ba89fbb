// Linear layers, and an MLP of two, as operators. A comment above each lists its inputs; `weights` stands for the
// inputs of a struct of weight_formats.h.
#pragma once
#include "weight_formats.h"

#include <algorithm>
#include <cstring>

namespace edge_vlm {

// Reads norm_weight and norm_bias, (in,) each, which are inputs `first` and `first` + 1, and the attribute epsilon, which
// is 1e-6 where there is none.
inline OrtStatus* ReadNorm(const OrtKernelInfo* info, size_t first, size_t in, Prologue* before) {
  Tensor weight, bias;
  RETURN_IF_ERROR(Constant(info, first, &weight));
  RETURN_IF_ERROR(Constant(info, first + 1, &bias));
  if (weight.size != in || bias.size != in) return Refuse("edge_vlm: a norm of another width than the weights'");
  before->norm_weight = weight.floats(), before->norm_bias = bias.floats();
  Ignore(api->KernelInfoGetAttribute_float(info, "epsilon", &before->epsilon));
  return nullptr;
}

// Reads the attribute activation, which is gelu_pytorch_tanh where there is none.
inline OrtStatus* ReadActivation(const OrtKernelInfo* info, After* after) {
  char name[16] = {};
  size_t size = 0;
  *after = After::kGeluTanh;
  if (OrtStatus* none = api->KernelInfoGetAttribute_string(info, "activation", nullptr, &size)) {
    api->ReleaseStatus(none);
    return nullptr;
  }
  if (size > sizeof(name)) return Refuse("edge_vlm: an activation that the kernels do not have");
  RETURN_IF_ERROR(api->KernelInfoGetAttribute_string(info, "activation", name, &size));
  if (!std::strcmp(name, "gelu"))
    *after = After::kGelu;
  else if (!std::strcmp(name, "quick_gelu"))
    *after = After::kQuickGelu;
  else
    return Refuse("edge_vlm: an activation that the kernels do not have");
  return nullptr;
}

inline OrtStatus* ApplyTo(OrtKernelContext* context, const Linear& linear, const Prologue& before,
                          const Epilogue& after, const Tensor& rows) {
  float* result;
  RETURN_IF_ERROR(Output(context, rows.dims[0], linear.out(), &result));
  linear.Apply(Run(context), rows.floats(), static_cast<size_t>(rows.dims[0]), before, after, result);
  return nullptr;
}

// Inputs: rows, weights.
template <class Stored>
struct LinearOp {
  static constexpr const char* kName = Stored::kLinear;
  static constexpr size_t kInputs = 1 + Stored::kInputs;
  Linear linear;

  OrtStatus* Create(const OrtKernelInfo* info, bool copies) { return Stored::Read(info, 1, copies, &linear); }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    return ApplyTo(context, linear, {}, {}, rows);
  }
};

// Inputs: rows, norm_weight, norm_bias, weights. The general operator has another name, so that a library that knows only
// the usual norm does not compute that one in its place.
template <class Stored, bool kIsGeneral>
struct NormLinearOp {
  static constexpr const char* kName = kIsGeneral ? Stored::kGeneralNormLinear : Stored::kNormLinear;
  static constexpr size_t kInputs = 3 + Stored::kInputs;
  Linear linear;
  Prologue before;

  OrtStatus* Create(const OrtKernelInfo* info, bool copies) {
    RETURN_IF_ERROR(Stored::Read(info, 3, copies, &linear));
    return ReadNorm(info, 1, linear.in(), &before);
  }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    return ApplyTo(context, linear, before, {}, rows);
  }
};

// Inputs: rows, weights, residual.
template <class Stored>
struct LinearAddOp {
  static constexpr const char* kName = Stored::kLinearAdd;
  static constexpr size_t kInputs = 2 + Stored::kInputs;
  Linear linear;

  OrtStatus* Create(const OrtKernelInfo* info, bool copies) { return Stored::Read(info, 1, copies, &linear); }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows, residual;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    RETURN_IF_ERROR(Rows(context, kInputs - 1, linear.out(), &residual));
    if (residual.dims[0] != rows.dims[0]) return Refuse("edge_vlm: another number of residual rows");
    return ApplyTo(context, linear, {}, {After::kResidual, residual.floats()}, rows);
  }
};

// Inputs: rows, norm_weight, norm_bias, weights of the first layer, factors (wide,) where kHasFactors, weights of the
// second.
template <class Stored, bool kIsGeneral>
struct NormMlpAddOp {
  static constexpr const char* kName = kIsGeneral ? Stored::kGeneralNormMlpAdd : Stored::kNormMlpAdd;
  static constexpr size_t kFactors = 3 + Stored::kInputs, kSecond = kFactors + Stored::kHasFactors;
  static constexpr size_t kInputs = kSecond + Stored::kInputs;
  Linear first, second;
  Prologue before_first, before_second;
  After activation = After::kGeluTanh;

  OrtStatus* Create(const OrtKernelInfo* info, bool copies) {
    RETURN_IF_ERROR(Stored::Read(info, 3, copies, &first));
    RETURN_IF_ERROR(Stored::Read(info, kSecond, copies, &second));
    RETURN_IF_ERROR(ReadNorm(info, 1, first.in(), &before_first));
    RETURN_IF_ERROR(ReadActivation(info, &activation));
    Tensor factors;
    if (Stored::kHasFactors) RETURN_IF_ERROR(Constant(info, kFactors, &factors));
    bool has_all = !Stored::kHasFactors || factors.size == first.out();
    if (!has_all || first.out() != second.in() || second.out() != first.in())
      return Refuse("edge_vlm: layers of an MLP that do not fit each other");
    before_second.factors = factors.floats();
    return nullptr;
  }

  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows;
    RETURN_IF_ERROR(Rows(context, 0, first.in(), &rows));
    float* result;
    RETURN_IF_ERROR(Output(context, rows.dims[0], second.out(), &result));
    Run run(context);
    auto count = static_cast<size_t>(rows.dims[0]);
    Scratch<float> wide(run, std::min(count, Stored::kRowsPerChunk) * first.out());
    for (size_t start = 0; start < count; start += Stored::kRowsPerChunk) {
      size_t chunk = std::min(Stored::kRowsPerChunk, count - start);
      const float* x = rows.floats() + start * first.in();
      first.Apply(run, x, chunk, before_first, {activation, nullptr}, wide.get());
      second.Apply(run, wide.get(), chunk, before_second, {After::kResidual, x}, result + start * second.out());
    }
    return nullptr;
  }
};

}  // namespace edge_vlm
