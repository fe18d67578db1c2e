// Settings for a GPU, and what is done there to lists of tensors at once; inference mode, which is for every
// device.

#include "bridge.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/InferenceMode.h>

namespace {

c10::List<Tensor> list(const Tensor *const *tensors, size_t n) {
  c10::List<Tensor> found;
  for (size_t i = 0; i < n; ++i) found.push_back(*tensors[i]);
  return found;
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

// libtorch's inference mode until `vedm_leave`, on this thread: no tensor counts its versions.
void *vedm_enter() { return new c10::InferenceMode(); }
void vedm_leave(void *mode) { delete static_cast<c10::InferenceMode *>(mode); }
}
