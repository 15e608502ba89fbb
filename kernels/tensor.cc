#include "tensor.h"

namespace edge_vlm {
namespace {

OrtStatus* Read(const OrtValue* value, Tensor* tensor) {
  OrtTensorTypeAndShapeInfo* info;
  RETURN_IF_ERROR(api->GetTensorTypeAndShape(value, &info));
  Ignore(api->GetTensorElementType(info, &tensor->type));
  Ignore(api->GetDimensionsCount(info, &tensor->rank));
  Ignore(api->GetTensorShapeElementCount(info, &tensor->size));
  if (tensor->rank <= 4) Ignore(api->GetDimensions(info, tensor->dims, tensor->rank));
  api->ReleaseTensorTypeAndShapeInfo(info);
  if (tensor->rank > 4) return Refuse("edge_vlm: more than four dimensions");
  void* data;
  RETURN_IF_ERROR(api->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor->data = data;
  return nullptr;
}

}  // namespace

OrtStatus* Refuse(const char* why) { return api->CreateStatus(ORT_INVALID_ARGUMENT, why); }

OrtStatus* Constant(const OrtKernelInfo* info, size_t index, Tensor* tensor) {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  RETURN_IF_ERROR(api->KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value));
  return is_constant && value ? Read(value, tensor) : Refuse("edge_vlm: weights must be constants");
}

OrtStatus* Input(OrtKernelContext* context, size_t index, Tensor* tensor) {
  const OrtValue* value = nullptr;
  RETURN_IF_ERROR(api->KernelContext_GetInput(context, index, &value));
  return Read(value, tensor);
}

OrtStatus* Rows(OrtKernelContext* context, size_t index, size_t width, Tensor* rows) {
  RETURN_IF_ERROR(Input(context, index, rows));
  bool fits = rows->rank == 2 && static_cast<size_t>(rows->dims[1]) == width;
  return fits ? nullptr : Refuse("edge_vlm: rows of another width than the weights'");
}

OrtStatus* Output(OrtKernelContext* context, int64_t rows, size_t columns, float** data) {
  int64_t dims[] = {rows, static_cast<int64_t>(columns)};
  OrtValue* value;
  RETURN_IF_ERROR(api->KernelContext_GetOutput(context, 0, dims, 2, &value));
  return api->GetTensorMutableData(value, reinterpret_cast<void**>(data));
}

}  // namespace edge_vlm
