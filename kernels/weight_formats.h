// The formats of stored layers, and the names of their operators. Weights must be constants.
#pragma once
#include "linear.h"
#include "tensor.h"

namespace edge_vlm {

constexpr int64_t kAccuracyOfBf16 = 3;  // as onnxruntime's MatMulNBits numbers them

// Each has names of operators, the number of a layer's inputs, and Read, which makes the layer of the inputs from
// `first` on.

struct Bytes {
  static constexpr const char *kLinear = "Linear8", *kNormLinear = "NormLinear8", *kLinearAdd = "LinearAdd8",
                              *kNormMlpAdd = "NormMlpAdd8",
                              *kGeneralNormLinear = "GeneralNormLinear8",
                              *kGeneralNormMlpAdd = "GeneralNormMlpAdd8";
  static constexpr size_t kInputs = 3;
  static constexpr bool kHasFactors = true;  // between the layers of an MLP
  static constexpr size_t kRowsPerChunk = 256;  // an MLP takes so many at a time: their wide rows stay in the third cache

  // weight int8 (in, out), steps (out,), sums_and_bias (2, out)
  static OrtStatus* Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear);
};

struct Nibbles {
  static constexpr const char *kLinear = "Linear4", *kNormLinear = "NormLinear4", *kLinearAdd = "LinearAdd4",
                              *kNormMlpAdd = "NormMlpAdd4",
                              *kGeneralNormLinear = "GeneralNormLinear4",
                              *kGeneralNormMlpAdd = "GeneralNormMlpAdd4";
  static constexpr size_t kInputs = 4;
  static constexpr bool kHasFactors = true;
  static constexpr size_t kRowsPerChunk = Bytes::kRowsPerChunk;

  // weight uint8 (out, blocks, 16), steps (out, blocks), zeros uint8 (out, ceil(blocks / 2)), bias (out,); attributes K
  // and N are the layer's inputs and outputs, and the outputs and inputs of the second layer of an MLP
  static OrtStatus* Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear);
};

struct Halves {
  static constexpr const char *kLinear = "Linear16", *kNormLinear = "NormLinear16", *kLinearAdd = "LinearAdd16",
                              *kNormMlpAdd = "NormMlpAdd16",
                              *kGeneralNormLinear = "GeneralNormLinear16",
                              *kGeneralNormMlpAdd = "GeneralNormMlpAdd16";
  static constexpr size_t kInputs = 2;
  static constexpr bool kHasFactors = false;
  static constexpr size_t kRowsPerChunk = kMostFloatRows;  // weights are larger than rows

  // weight fp16 (out, in), bias (out,); attribute accuracy_level
  static OrtStatus* Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear);
};

// Halves whose products may be bf16, where that is quicker and the session allows copies; elsewhere they are float32.
struct HalvesInBf16 {
  static constexpr const char *kLinear = "LinearBf16", *kNormLinear = "NormLinearBf16", *kLinearAdd = "LinearAddBf16",
                              *kNormMlpAdd = "NormMlpAddBf16",
                              *kGeneralNormLinear = "GeneralNormLinearBf16",
                              *kGeneralNormMlpAdd = "GeneralNormMlpAddBf16";
  static constexpr size_t kInputs = Halves::kInputs;
  static constexpr bool kHasFactors = false;
  static constexpr size_t kRowsPerChunk = Halves::kRowsPerChunk;

  // reads what Halves reads, without an attribute
  static OrtStatus* Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear);
};

struct Floats {
  static constexpr const char *kLinear = "Linear32", *kNormLinear = "NormLinear32", *kLinearAdd = "LinearAdd32",
                              *kNormMlpAdd = "NormMlpAdd32",
                              *kGeneralNormLinear = "GeneralNormLinear32",
                              *kGeneralNormMlpAdd = "GeneralNormMlpAdd32";
  static constexpr size_t kInputs = 2;
  static constexpr bool kHasFactors = false;
  static constexpr size_t kRowsPerChunk = kMostFloatRows;

  // weight float32 (out, in), bias (out,)
  static OrtStatus* Read(const OrtKernelInfo* info, size_t first, bool copies, Linear* linear);
};

}  // namespace edge_vlm
