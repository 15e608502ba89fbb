// The operators as onnxruntime sees them: domain "edge_vlm", version 1, float32 rows in and out. The graph itself holds
// what each computes, as a function of standard operators (export/graph/operators.py), which onnxruntime runs where it
// has not loaded this library, or the library has no operator of that name.
#include "attention.h"
#include "heads.h"
#include "layer_ops.h"
#include "matrix.h"
#include "tile.h"

#include <cstdlib>
#include <new>

namespace edge_vlm {

const OrtApi* api = nullptr;

namespace {

constexpr const char* kDomain = "edge_vlm";

using AttendTo = void(const Run&, const float*, const Frames&, const float*, const float*, float*);

// Inputs: packed (rows, 3 * hidden), shape (frames, patches, 3 * hidden), cosines, sines (patches, head_dim / 2);
// attribute num_heads
template <AttendTo* kAttend>
struct FrameAttentionOp {
  static constexpr const char* kName = kAttend == Attend ? "FrameAttention" : "FrameAttention32";
  static constexpr size_t kInputs = 4;
  int64_t num_heads = 0;

  OrtStatus* Create(const OrtKernelInfo* info, bool) {
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
    if (packed.size) kAttend(Run(context), packed.floats(), frames, cosines.floats(), sines.floats(), result);
    return nullptr;
  }
};

template <class Kernel, bool kCopies>
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
      OrtStatus* status = made->Create(info, kCopies);
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

template <class Kernel, bool kCopies>
OrtStatus* AddTo(OrtCustomOpDomain* domain) {
  static Op<Kernel, kCopies> op;
  return api->CustomOpDomain_Add(domain, &op);
}

template <class Stored, bool kCopies>
OrtStatus* AddLayersTo(OrtCustomOpDomain* domain) {
  RETURN_IF_ERROR((AddTo<LinearOp<Stored>, kCopies>(domain)));
  RETURN_IF_ERROR((AddTo<NormLinearOp<Stored, false>, kCopies>(domain)));
  RETURN_IF_ERROR((AddTo<NormLinearOp<Stored, true>, kCopies>(domain)));
  RETURN_IF_ERROR((AddTo<LinearAddOp<Stored>, kCopies>(domain)));
  RETURN_IF_ERROR((AddTo<NormMlpAddOp<Stored, false>, kCopies>(domain)));
  return AddTo<NormMlpAddOp<Stored, true>, kCopies>(domain);
}

template <bool kCopies>
OrtStatus* AddAllTo(OrtCustomOpDomain* domain) {
  RETURN_IF_ERROR((AddLayersTo<Nibbles, kCopies>(domain)));
  RETURN_IF_ERROR((AddLayersTo<Bytes, kCopies>(domain)));
  RETURN_IF_ERROR((AddLayersTo<Halves, kCopies>(domain)));
  RETURN_IF_ERROR((AddLayersTo<HalvesInBf16, kCopies>(domain)));
  RETURN_IF_ERROR((AddTo<FrameAttentionOp<Attend>, kCopies>(domain)));
  if constexpr (kIsBestInFloats) {
    RETURN_IF_ERROR((AddLayersTo<Floats, kCopies>(domain)));
    RETURN_IF_ERROR((AddTo<FrameAttentionOp<AttendInFloats>, kCopies>(domain)));
  }
  return nullptr;
}

// Whether layers may copy weights into another order, by the option that onnxruntime's own layers read.
OrtStatus* MayCopy(const OrtSessionOptions* options, bool* may_copy) {
  constexpr const char* kKey = "session.disable_prepacking";
  int is_set = 0;
  char value[8] = "0";
  size_t size = sizeof(value);
  RETURN_IF_ERROR(api->HasSessionConfigEntry(options, kKey, &is_set));
  if (is_set) RETURN_IF_ERROR(api->GetSessionConfigEntry(options, kKey, value, &size));
  *may_copy = value[0] != '1';
  return nullptr;
}

}  // namespace
}  // namespace edge_vlm

extern "C" {

// 1 where this processor has the instructions that the kernels use.
__attribute__((visibility("default"))) int EdgeVlmIsSupported() { return edge_vlm::IsSupported() ? 1 : 0; }

// 1 where the library multiplies on matrix tiles too, because the processor has them and the system allows this process
// to use them.
__attribute__((visibility("default"))) int EdgeVlmHasMatrix() {
  if constexpr (edge_vlm::kMayHaveMatrix) return edge_vlm::HasMatrix() ? 1 : 0;
  return 0;
}

// 1 where layers that allow bf16 multiply in it, because that is quicker here than float32.
__attribute__((visibility("default"))) int EdgeVlmMultipliesBf16() { return edge_vlm::Linear::IsBestInBf16() ? 1 : 0; }

__attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                   const OrtApiBase* base) {
  using namespace edge_vlm;
  api = base->GetApi(ORT_API_VERSION);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "edge_vlm: this onnxruntime is too old for the kernels");
  OrtCustomOpDomain* domain;
  bool may_copy;
  RETURN_IF_ERROR(MayCopy(options, &may_copy));
  RETURN_IF_ERROR(api->CreateCustomOpDomain(kDomain, &domain));
  RETURN_IF_ERROR(may_copy ? AddAllTo<true>(domain) : AddAllTo<false>(domain));
  return api->AddCustomOpDomain(options, domain);
}
}
