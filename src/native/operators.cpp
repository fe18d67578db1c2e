// Operators of libtorch that its C bindings leave out, called by name through the dispatcher: products
// with packed matrices (oneDNN, FBGEMM), and what is done to lists of tensors at once on a GPU. A packed
// matrix is an IValue that Rust holds by its pointer.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <c10/core/InferenceMode.h>

#include <cstring>
#include <optional>
#include <string>

namespace {

using at::Tensor;
using c10::IValue;

IValue call(const char *name, c10::Stack stack, const char *overload = "") {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).callBoxed(stack);
  return stack.at(0);
}

c10::List<Tensor> list(const Tensor *const *tensors, size_t n) {
  c10::List<Tensor> found;
  for (size_t i = 0; i < n; ++i) found.push_back(*tensors[i]);
  return found;
}

IValue optional(const Tensor *tensor) { return tensor ? IValue(*tensor) : IValue(); }

// Runs `body`; an exception becomes a sentence in `error` and a null result.
template <class Body>
auto guarded(char **error, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const c10::Error &exception) {
    *error = strdup(exception.what_without_backtrace());
  } catch (const std::exception &exception) {
    *error = strdup(exception.what());
  }
  return nullptr;
}

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

// Products and convolutions of f32 take all of its bits. cuDNN's attention is left out: it compiles a kernel
// for every length that it meets.
void vedm_prepare_cuda() {
  auto &context = at::globalContext();
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
  context.setSDPUseCuDNN(false);
}

// One step of AdamW in place, the `step`th (f32 []) of all. `all`: n parameters, their n gradients, n first and
// n second moments. Gradients are divided by `divisor` (f32 []), and so they are left. Gives anything but null.
const void *vedm_adamw(const Tensor *const *all, size_t n, const Tensor *step, double learning_rate, double beta1,
                       double beta2, double weight_decay, double eps, const Tensor *divisor, char **error) {
  return guarded(error, [&]() -> const void * {
    auto part = [&](size_t which) { return list(all + which * n, n); };
    c10::List<Tensor> steps;
    for (size_t i = 0; i < n; ++i) steps.push_back(*step);
    c10::Stack stack{part(0), part(1), part(2), part(3), c10::List<Tensor>(), steps, learning_rate, beta1, beta2,
                     weight_decay, eps, false, false, *divisor, IValue()};
    c10::Dispatcher::singleton().findSchemaOrThrow("aten::_fused_adamw_", "").callBoxed(stack);
    return all;
  });
}

// libtorch's inference mode until `vedm_leave`, on this thread: no tensor counts its versions.
void *vedm_enter() { return new c10::InferenceMode(); }
void vedm_leave(void *mode) { delete static_cast<c10::InferenceMode *>(mode); }

// Room for so many f32 in memory that a GPU copies from by itself, [n]. (tch's `pin_memory` warns of itself.)
Tensor *vedm_pinned(int64_t n, char **error) {
  return guarded(error, [&]() -> Tensor * {
    return new Tensor(at::empty({n}, at::TensorOptions(at::kFloat).pinned_memory(true)));
  });
}

// The norm of all tensors together, [].
Tensor *vedm_norm(const Tensor *const *all, size_t n, char **error) {
  return guarded(error, [&]() -> Tensor * {
    auto norms = call("aten::_foreach_norm", {list(all, n), at::Scalar(2.0), IValue()}, "Scalar");
    return new Tensor(at::stack(norms.toTensorVector()).norm());
  });
}

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
