// Reads onnxruntime's values as pointers and sizes, and refuses wrong ones with its errors.
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

// Reads constant weights while onnxruntime creates a kernel.
OrtStatus* Constant(const OrtKernelInfo* info, size_t index, Tensor* tensor);

// Reads an input of a kernel that runs.
OrtStatus* Input(OrtKernelContext* context, size_t index, Tensor* tensor);

// Reads an input of two dimensions, and refuses it where the second is not `width`.
OrtStatus* Rows(OrtKernelContext* context, size_t index, size_t width, Tensor* rows);

// Makes the only output, (rows, columns).
OrtStatus* Output(OrtKernelContext* context, int64_t rows, size_t columns, float** data);

}  // namespace edge_vlm
