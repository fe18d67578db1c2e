// Products with packed matrices (oneDNN, FBGEMM), called by name through the dispatcher. A packed matrix is an
// IValue that Rust holds by its pointer.

#include "bridge.h"

#include <ATen/Context.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <string>

namespace {

IValue optional(const Tensor *tensor) { return tensor ? IValue(*tensor) : IValue(); }

enum Layout { ONEDNN = 0, F16 = 1, INT8_FBGEMM = 2, INT8_ONEDNN = 3 };

// Which engine packs is a setting of the process.
IValue prepack(const char *name, at::QEngine engine, const Tensor &weight, const Tensor *bias) {
  at::globalContext().setQEngine(engine);
  return call(name, {weight, optional(bias)});
}

// Whole numbers of 8 bits with a scale for each output, in the form of one engine.
IValue pack_int8(at::QEngine engine, const Tensor &weight, const Tensor *scales, const Tensor *bias) {
  auto zeros = at::zeros(scales->sizes(), scales->options().dtype(at::kLong));
  auto numbers = call("aten::_make_per_channel_quantized_tensor", {weight, *scales, zeros, int64_t(0)});
  return prepack("quantized::linear_prepack", engine, numbers.toTensor(), bias);
}

}  // namespace

extern "C" {

// W [out, in] (for int8 whole numbers), the scale of each output (f64, for int8), b [out] -> the packed matrix.
void *vedm_pack(int layout, const Tensor *weight, const Tensor *scales, const Tensor *bias,
                char **error) {
  return guarded(error, [&]() -> IValue * {
    switch (layout) {
      case ONEDNN:
        return new IValue(call("mkldnn::_reorder_linear_weight", {*weight, IValue()}));
      case F16:
        return new IValue(prepack("quantized::linear_prepack_fp16", at::QEngine::FBGEMM, *weight, bias));
      case INT8_FBGEMM:
        return new IValue(pack_int8(at::QEngine::FBGEMM, *weight, scales, bias));
      default:
        return new IValue(pack_int8(at::QEngine::ONEDNN, *weight, scales, bias));
    }
  });
}

// x·Wᵀ + b of x [.., in], then (oneDNN only) the activation of that name. The bias is part of the other
// layouts.
Tensor *vedm_product(int layout, const IValue *packed, const Tensor *xs, const Tensor *bias,
                     const char *activation, const char *algorithm, char **error) {
  return guarded(error, [&]() -> Tensor * {
    switch (layout) {
      case ONEDNN: {
        c10::List<std::optional<at::Scalar>> scalars;
        auto named = algorithm ? IValue(std::string(algorithm)) : IValue();
        return new Tensor(call("mkldnn::_linear_pointwise", {*xs, *packed, optional(bias),
                               std::string(activation), scalars, named}).toTensor());
      }
      case F16:
        return new Tensor(call("quantized::linear_dynamic_fp16", {*xs, *packed}).toTensor());
      default:
        return new Tensor(call("quantized::linear_dynamic", {*xs, *packed, false}).toTensor());
    }
  });
}

void vedm_let_go(IValue *packed) { delete packed; }
}
