#include "stored.h"

#include <algorithm>
#include <cstdio>

namespace edge_vlm {
namespace {

// weight (out, in) of that type and a bias for each row
OrtStatus* ReadRows(const OrtKernelInfo* info, size_t first, ONNXTensorElementDataType type, Tensor* weight,
                    Tensor* bias) {
  RETURN_IF_ERROR(Constant(info, first, weight));
  RETURN_IF_ERROR(Constant(info, first + 1, bias));
  if (weight->rank == 2 && weight->type == type && bias->size == static_cast<size_t>(weight->dims[0])) return nullptr;
  return Refuse("edge_vlm: weights of another type, or without a bias a row");
}

}  // namespace

OrtStatus* Bytes::Read(const OrtKernelInfo* info, size_t first, bool, Linear* linear) {
  Tensor weight, steps, sums_and_bias;
  RETURN_IF_ERROR(Constant(info, first, &weight));
  RETURN_IF_ERROR(Constant(info, first + 1, &steps));
  RETURN_IF_ERROR(Constant(info, first + 2, &sums_and_bias));
  auto in = static_cast<size_t>(weight.dims[0]), out = static_cast<size_t>(weight.dims[1]);
  if (weight.rank != 2 || weight.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 || steps.size != out ||
      sums_and_bias.size != 2 * out)
    return Refuse("edge_vlm: int8 weights need a step, a sum and a bias a column");
  const auto* values = static_cast<const int8_t*>(weight.data);
  if (in > kMostInputs8) {
    char why[96];
    std::snprintf(why, sizeof(why), "edge_vlm: an int8 layer has %zu inputs, at most %zu are summed in 32 bits", in,
                  kMostInputs8);
    return Refuse(why);
  }
  int8_t lowest = 0;
  for (size_t i = 0; i < weight.size; ++i) lowest = std::min(lowest, values[i]);
  if (lowest < -127) return Refuse("edge_vlm: an int8 weight is -128, -127 to 127 are expected");
  *linear = Linear::Int8(values, steps.floats(), sums_and_bias.floats(), in, out);
  return nullptr;
}

OrtStatus* Halves::Read(const OrtKernelInfo* info, size_t first, bool, Linear* linear) {
  Tensor weight, bias;
  RETURN_IF_ERROR(ReadRows(info, first, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, &weight, &bias));
  int64_t accuracy_level = 0;
  Ignore(api->KernelInfoGetAttribute_int64(info, "accuracy_level", &accuracy_level));
  *linear = Linear::Half(static_cast<const uint16_t*>(weight.data), bias.floats(), static_cast<size_t>(weight.dims[1]),
                         bias.size, accuracy_level == kAccuracyOfBf16);
  return nullptr;
}

OrtStatus* Floats::Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear) {
  Tensor weight, bias;
  RETURN_IF_ERROR(ReadRows(info, first, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &weight, &bias));
  *linear = Linear::Float(weight.floats(), bias.floats(), static_cast<size_t>(weight.dims[1]), bias.size, copies);
  return nullptr;
}

}  // namespace edge_vlm
