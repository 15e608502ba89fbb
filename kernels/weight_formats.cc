#include "weight_formats.h"

#include <algorithm>
#include <cstdio>

namespace edge_vlm {
namespace {

constexpr float kMostOfAStep = 1e30f;  // fifteen times as much is still finite

// Reads weight (out, in) of that type, and a bias for each row.
OrtStatus* ReadRows(const OrtKernelInfo* info, size_t first, ONNXTensorElementDataType type, Tensor* weight,
                    Tensor* bias) {
  RETURN_IF_ERROR(Constant(info, first, weight));
  RETURN_IF_ERROR(Constant(info, first + 1, bias));
  if (weight->rank == 2 && weight->type == type && bias->size == static_cast<size_t>(weight->dims[0])) return nullptr;
  return Refuse("edge_vlm: weights of another type, or without a bias a row");
}

// Makes a layer of weight fp16 (out, in) and bias (out,).
OrtStatus* ReadHalves(const OrtKernelInfo* info, size_t first, bool may_be_bf16, Linear* linear) {
  Tensor weight, bias;
  RETURN_IF_ERROR(ReadRows(info, first, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, &weight, &bias));
  *linear = Linear::Half(static_cast<const uint16_t*>(weight.data), bias.floats(), static_cast<size_t>(weight.dims[1]),
                         bias.size, may_be_bf16);
  return nullptr;
}

OrtStatus* CheckInputs(size_t in) {
  if (in <= kMostInputs8) return nullptr;
  char why[96];
  std::snprintf(why, sizeof(why), "edge_vlm: a layer of integers has %zu inputs, at most %zu are summed in 32 bits", in,
                kMostInputs8);
  return Refuse(why);
}

}  // namespace

OrtStatus* Bytes::Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear) {
  Tensor weight, steps, sums_and_bias;
  RETURN_IF_ERROR(Constant(info, first, &weight));
  RETURN_IF_ERROR(Constant(info, first + 1, &steps));
  RETURN_IF_ERROR(Constant(info, first + 2, &sums_and_bias));
  auto in = static_cast<size_t>(weight.dims[0]), out = static_cast<size_t>(weight.dims[1]);
  if (weight.rank != 2 || weight.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 || steps.size != out ||
      sums_and_bias.size != 2 * out)
    return Refuse("edge_vlm: int8 weights need a step, a sum and a bias a column");
  const auto* values = static_cast<const int8_t*>(weight.data);
  RETURN_IF_ERROR(CheckInputs(in));
  int8_t lowest = 0;
  for (size_t i = 0; i < weight.size; ++i) lowest = std::min(lowest, values[i]);
  if (lowest < -127) return Refuse("edge_vlm: an int8 weight is -128, -127 to 127 are expected");
  *linear = Linear::Int8(values, steps.floats(), sums_and_bias.floats(), in, out, copies);
  return nullptr;
}

OrtStatus* Nibbles::Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear) {
  Tensor weight, steps, zeros, bias;
  RETURN_IF_ERROR(Constant(info, first, &weight));
  RETURN_IF_ERROR(Constant(info, first + 1, &steps));
  RETURN_IF_ERROR(Constant(info, first + 2, &zeros));
  RETURN_IF_ERROR(Constant(info, first + 3, &bias));
  int64_t inputs = 0, outputs = 0;
  RETURN_IF_ERROR(api->KernelInfoGetAttribute_int64(info, "K", &inputs));
  RETURN_IF_ERROR(api->KernelInfoGetAttribute_int64(info, "N", &outputs));
  constexpr auto kType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  bool is_packed = weight.rank == 3 && weight.type == kType && weight.dims[2] == kBlock4 / 2 && zeros.type == kType;
  if (!is_packed) return Refuse("edge_vlm: weights of four bits lie in blocks of 16 bytes");
  auto out = static_cast<size_t>(weight.dims[0]), num_blocks = static_cast<size_t>(weight.dims[1]);
  auto in = static_cast<size_t>(weight.dims[0] == outputs ? inputs : outputs);
  RETURN_IF_ERROR(CheckInputs(in));
  if (RoundUp(in, kBlock4) != num_blocks * kBlock4 || steps.size != out * num_blocks ||
      zeros.size != out * ((num_blocks + 1) / 2) || bias.size != out)
    return Refuse("edge_vlm: weights of four bits need a step and a zero a block, and a bias a column");
  for (size_t i = 0; i < steps.size; ++i)
    if (!(steps.floats()[i] > 0 && steps.floats()[i] < kMostOfAStep))
      return Refuse("edge_vlm: a step of weights of four bits is not a positive number");
  const auto* values = static_cast<const uint8_t*>(weight.data);
  Blocks4 blocks{values, steps.floats(), static_cast<const uint8_t*>(zeros.data), num_blocks};
  *linear = Linear::Int4(blocks, bias.floats(), in, out, copies);
  return nullptr;
}

OrtStatus* Halves::Read(const OrtKernelInfo* info, size_t first, bool, Linear* linear) {
  int64_t accuracy_level = 0;
  Ignore(api->KernelInfoGetAttribute_int64(info, "accuracy_level", &accuracy_level));
  return ReadHalves(info, first, accuracy_level == kAccuracyOfBf16, linear);
}

OrtStatus* HalvesInBf16::Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear) {
  return ReadHalves(info, first, copies, linear);
}

OrtStatus* Floats::Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear) {
  Tensor weight, bias;
  RETURN_IF_ERROR(ReadRows(info, first, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &weight, &bias));
  *linear = Linear::Float(weight.floats(), bias.floats(), static_cast<size_t>(weight.dims[1]), bias.size, copies);
  return nullptr;
}

}  // namespace edge_vlm
