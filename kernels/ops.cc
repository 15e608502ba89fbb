// The operators as onnxruntime sees them: domain "edge_vlm", version 1, float32 rows in and out. What each computes is
// written in the graph itself, as a function of standard operators (export/operators.py), and that is what runs where
// this library is not loaded. Inputs are listed above each kernel; weights must be constants.
#include "attention.h"
#include "heads.h"
#include "linear.h"
#include "tile.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace edge_vlm {

const OrtApi* api = nullptr;

namespace {

constexpr const char* kDomain = "edge_vlm";
constexpr size_t kRowsPerChunk = 256;  // of an MLP, so that its wide rows stay in the third cache

constexpr int64_t kAccuracyOfBf16 = 3;  // as onnxruntime's MatMulNBits numbers them

#define RETURN_IF_ERROR(call) \
  if (OrtStatus* status = (call)) return status

OrtStatus* Refuse(const char* why) { return api->CreateStatus(ORT_INVALID_ARGUMENT, why); }

struct Tensor {
  const void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  int64_t dims[4] = {};
  size_t rank = 0, size = 0;

  const float* floats() const { return static_cast<const float*>(data); }
};

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

// weight int8 (in, out), steps (out,), sums_and_bias (2, out)
OrtStatus* PackInt8(const OrtKernelInfo* info, size_t first, Linear* linear) {
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

// norm_weight and norm_bias (in,)
OrtStatus* ReadNorm(const OrtKernelInfo* info, size_t first, size_t in, Prologue* before) {
  Tensor weight, bias;
  RETURN_IF_ERROR(Constant(info, first, &weight));
  RETURN_IF_ERROR(Constant(info, first + 1, &bias));
  if (weight.size != in || bias.size != in) return Refuse("edge_vlm: a norm of another width than the weights'");
  before->norm_weight = weight.floats(), before->norm_bias = bias.floats();
  return nullptr;
}

OrtStatus* ApplyTo(OrtKernelContext* context, const Linear& linear, const Prologue& before, const Epilogue& after,
                   const Tensor& rows) {
  float* result;
  RETURN_IF_ERROR(Output(context, rows.dims[0], linear.out(), &result));
  linear.Apply(Run(context), rows.floats(), static_cast<size_t>(rows.dims[0]), before, after, result);
  return nullptr;
}

// rows, weight, steps, sums_and_bias
struct Linear8 {
  static constexpr const char* kName = "Linear8";
  static constexpr size_t kInputs = 4;
  Linear linear;

  OrtStatus* Create(const OrtKernelInfo* info) { return PackInt8(info, 1, &linear); }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    return ApplyTo(context, linear, {}, {}, rows);
  }
};

// rows, norm_weight, norm_bias, weight, steps, sums_and_bias
struct NormLinear8 {
  static constexpr const char* kName = "NormLinear8";
  static constexpr size_t kInputs = 6;
  Linear linear;
  Prologue before;

  OrtStatus* Create(const OrtKernelInfo* info) {
    RETURN_IF_ERROR(PackInt8(info, 3, &linear));
    return ReadNorm(info, 1, linear.in(), &before);
  }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    return ApplyTo(context, linear, before, {}, rows);
  }
};

// rows, weight, steps, sums_and_bias, residual
struct LinearAdd8 {
  static constexpr const char* kName = "LinearAdd8";
  static constexpr size_t kInputs = 5;
  Linear linear;

  OrtStatus* Create(const OrtKernelInfo* info) { return PackInt8(info, 1, &linear); }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows, residual;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    RETURN_IF_ERROR(Rows(context, 4, linear.out(), &residual));
    if (residual.dims[0] != rows.dims[0]) return Refuse("edge_vlm: another number of residual rows");
    return ApplyTo(context, linear, {}, {false, residual.floats()}, rows);
  }
};

// rows, weight fp16 (out, in), bias (out,); attribute accuracy_level
struct Linear16 {
  static constexpr const char* kName = "Linear16";
  static constexpr size_t kInputs = 3;
  Linear linear;

  OrtStatus* Create(const OrtKernelInfo* info) {
    Tensor weight, bias;
    RETURN_IF_ERROR(Constant(info, 1, &weight));
    RETURN_IF_ERROR(Constant(info, 2, &bias));
    auto out = static_cast<size_t>(weight.dims[0]), in = static_cast<size_t>(weight.dims[1]);
    if (weight.rank != 2 || weight.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 || bias.size != out)
      return Refuse("edge_vlm: fp16 weights need a bias a row");
    int64_t accuracy_level = 0;
    Ignore(api->KernelInfoGetAttribute_int64(info, "accuracy_level", &accuracy_level));
    auto* values = static_cast<const uint16_t*>(weight.data);
    linear = Linear::Half(values, bias.floats(), in, out, accuracy_level == kAccuracyOfBf16);
    return nullptr;
  }
  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor rows;
    RETURN_IF_ERROR(Rows(context, 0, linear.in(), &rows));
    return ApplyTo(context, linear, {}, {}, rows);
  }
};

// rows, norm_weight, norm_bias, weight, steps, sums_and_bias of the first layer, factors (wide,), the same three of the
// second
struct NormMlpAdd8 {
  static constexpr const char* kName = "NormMlpAdd8";
  static constexpr size_t kInputs = 10;
  Linear first, second;
  Prologue before_first, before_second;

  OrtStatus* Create(const OrtKernelInfo* info) {
    Tensor factors;
    RETURN_IF_ERROR(PackInt8(info, 3, &first));
    RETURN_IF_ERROR(PackInt8(info, 7, &second));
    RETURN_IF_ERROR(ReadNorm(info, 1, first.in(), &before_first));
    RETURN_IF_ERROR(Constant(info, 6, &factors));
    if (factors.size != first.out() || first.out() != second.in() || second.out() != first.in())
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
    Scratch<float> wide(run, std::min(count, kRowsPerChunk) * first.out());
    for (size_t start = 0; start < count; start += kRowsPerChunk) {
      size_t chunk = std::min(kRowsPerChunk, count - start);
      const float* x = rows.floats() + start * first.in();
      first.Apply(run, x, chunk, before_first, {true, nullptr}, wide.get());
      second.Apply(run, wide.get(), chunk, before_second, {false, x}, result + start * second.out());
    }
    return nullptr;
  }
};

// packed (rows, 3 * hidden), shape (frames, patches, 3 * hidden), cosines, sines (patches, head_dim / 2); attribute
// num_heads
struct FrameAttention {
  static constexpr const char* kName = "FrameAttention";
  static constexpr size_t kInputs = 4;
  int64_t num_heads = 0;

  OrtStatus* Create(const OrtKernelInfo* info) {
    return api->KernelInfoGetAttribute_int64(info, "num_heads", &num_heads);
  }

  OrtStatus* Compute(OrtKernelContext* context) const {
    Tensor packed, shape, cosines, sines;
    RETURN_IF_ERROR(Input(context, 0, &packed));
    RETURN_IF_ERROR(Input(context, 1, &shape));
    RETURN_IF_ERROR(Input(context, 2, &cosines));
    RETURN_IF_ERROR(Input(context, 3, &sines));
    const auto* dims = static_cast<const int64_t*>(shape.data);
    if (shape.size != 3 || num_heads < 1) return Refuse("edge_vlm.FrameAttention: shape has three numbers");
    auto num_frames = static_cast<size_t>(dims[0]), num_patches = static_cast<size_t>(dims[1]);
    auto hidden = static_cast<size_t>(dims[2]) / 3, heads = static_cast<size_t>(num_heads);
    Frames frames{num_frames, num_patches, heads, hidden / heads};
    size_t angles = num_patches * (frames.head_dim / 2);
    if (packed.size != num_frames * num_patches * 3 * hidden || frames.head_dim % 2 || cosines.size != angles ||
        sines.size != angles || frames.head_dim * heads != hidden)
      return Refuse("edge_vlm.FrameAttention: sizes do not fit");
    if (frames.head_dim > kMaxHeadDim) return Refuse("edge_vlm.FrameAttention: a head has more than 256 channels");
    float* result;
    RETURN_IF_ERROR(Output(context, dims[0] * dims[1], hidden, &result));
    if (packed.size) Attend(Run(context), packed.floats(), frames, cosines.floats(), sines.floats(), result);
    return nullptr;
  }
};

template <class Kernel>
struct Op : OrtCustomOp {
  Op() : OrtCustomOp{} {
    version = ORT_API_VERSION;
    GetName = [](const OrtCustomOp*) { return Kernel::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    GetInputTypeCount = [](const OrtCustomOp*) { return Kernel::kInputs; };
    GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
    GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return 1; };
    CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info, void** kernel) -> OrtStatusPtr {
      void* memory = std::malloc(sizeof(Kernel));
      if (!memory) return Refuse("edge_vlm: out of memory");
      auto* made = new (memory) Kernel;
      OrtStatus* status = made->Create(info);
      if (status) Destroy(made);
      *kernel = status ? nullptr : made;
      return status;
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatusPtr {
      return static_cast<Kernel*>(kernel)->Compute(context);
    };
    KernelDestroy = [](void* kernel) { Destroy(static_cast<Kernel*>(kernel)); };
  }

  static void Destroy(Kernel* kernel) {
    kernel->~Kernel();
    std::free(kernel);
  }
};

template <class Kernel>
OrtStatus* AddTo(OrtCustomOpDomain* domain) {
  static Op<Kernel> op;
  return api->CustomOpDomain_Add(domain, &op);
}

}  // namespace
}  // namespace edge_vlm

extern "C" {

// 1 where this processor has the instructions the kernels are made of.
__attribute__((visibility("default"))) int EdgeVlmIsSupported() { return edge_vlm::IsSupported() ? 1 : 0; }

__attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                   const OrtApiBase* base) {
  using namespace edge_vlm;
  api = base->GetApi(ORT_API_VERSION);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "edge_vlm: this onnxruntime is too old for the kernels");
  OrtCustomOpDomain* domain;
  RETURN_IF_ERROR(api->CreateCustomOpDomain(kDomain, &domain));
  RETURN_IF_ERROR(AddTo<Linear8>(domain));
  RETURN_IF_ERROR(AddTo<NormLinear8>(domain));
  RETURN_IF_ERROR(AddTo<LinearAdd8>(domain));
  RETURN_IF_ERROR(AddTo<Linear16>(domain));
  RETURN_IF_ERROR(AddTo<NormMlpAdd8>(domain));
  RETURN_IF_ERROR(AddTo<FrameAttention>(domain));
  return api->AddCustomOpDomain(options, domain);
}
}
