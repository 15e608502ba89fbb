// onnxruntime's values as pointers and sizes, and what is wrong with them as its errors.
#pragma once
#include "run.h"

#include <cstddef>
#include <cstdint>

namespace edge_vlm {

#define RETURN_IF_ERROR(call) \
  if (OrtStatus* status = (call)) return status

struct Tensor {
  const void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  int64_t dims[4] = {};
  size_t rank = 0, size = 0;

  const float* floats() const { return static_cast<const float*>(data); }
};

OrtStatus* Refuse(const char* why);

// The weights of a kernel that is being made: they do not change any more.
OrtStatus* Constant(const OrtKernelInfo* info, size_t index, Tensor* tensor);

// The tensors of a kernel that runs.
OrtStatus* Input(OrtKernelContext* context, size_t index, Tensor* tensor);

// An input of two dimensions, the second of which is `width`.
OrtStatus* Rows(OrtKernelContext* context, size_t index, size_t width, Tensor* rows);

// The only output, (rows, columns).
OrtStatus* Output(OrtKernelContext* context, int64_t rows, size_t columns, float** data);

}  // namespace edge_vlm
