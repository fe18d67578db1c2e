// A dense layer that learns: its products, those of its gradients too, are made by Rust.

#include "bridge.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

// A matrix [rows, inner] stored so or (turned) as [inner, rows].
struct Matrix {
  const float *values;
  int64_t rows;
  bool turned;
};

// a·bᵀ + bias (or none) by the function `work` of Rust, whose type `vedm_multiply` knows; false (and nothing
// done) where libtorch does it better.
extern "C" bool vedm_multiply(void *work, Matrix a, Matrix b, int64_t inner, const float *bias, float *out);

namespace {

struct Dense : torch::autograd::Function<Dense> {
  using Context = torch::autograd::AutogradContext;

  // a·bᵀ + bias, each matrix as it is stored: [rows, inner] or (turned) [inner, rows] -> [rows of a, rows of b]
  static Tensor times(void *work, const Tensor &a, bool a_turned, const Tensor &b, bool b_turned,
                      const std::optional<Tensor> &bias = std::nullopt) {
    Matrix left{a.const_data_ptr<float>(), a.size(a_turned), a_turned};
    Matrix right{b.const_data_ptr<float>(), b.size(b_turned), b_turned};
    auto out = at::empty({left.rows, right.rows}, a.options().requires_grad(false));
    auto added = bias ? bias->const_data_ptr<float>() : nullptr;
    if (vedm_multiply(work, left, right, a.size(!a_turned), added, out.mutable_data_ptr<float>())) return out;
    auto x = a_turned ? a.t() : a, y = b_turned ? b : b.t();
    return bias ? at::addmm(*bias, x, y) : at::mm(x, y);
  }

  // xs [R, in], W stored as [out, in] or (turned) [in, out], b [out] -> [R, out]
  static Tensor forward(Context *context, const Tensor &xs, const Tensor &weight,
                        const std::optional<Tensor> &bias, bool turned, int64_t work) {
    context->save_for_backward({xs, weight});
    context->saved_data["turned"] = turned;
    context->saved_data["biased"] = bias.has_value();
    context->saved_data["work"] = work;
    return times(reinterpret_cast<void *>(work), xs, false, weight, turned, bias);
  }

  static torch::autograd::variable_list backward(Context *context, torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &xs = saved[0], &weight = saved[1];
    auto turned = context->saved_data["turned"].toBool();
    auto work = reinterpret_cast<void *>(context->saved_data["work"].toInt());
    auto own = gradients[0].contiguous();
    Tensor of_xs, of_weight, of_bias;
    if (context->needs_input_grad(0)) of_xs = times(work, own, false, weight, !turned);
    if (context->needs_input_grad(1))
      of_weight = turned ? times(work, xs, true, own, true) : times(work, own, true, xs, true);
    if (context->saved_data["biased"].toBool() && context->needs_input_grad(2)) of_bias = own.sum(0);
    return {of_xs, of_weight, of_bias, Tensor(), Tensor()};
  }
};

}  // namespace

extern "C" {

// A dense layer by `work`; all of it contiguous f32 on the CPU. As `Dense::forward` says.
Tensor *vedm_dense(const Tensor *xs, const Tensor *weight, const Tensor *bias, bool turned, void *work,
                   char **error) {
  return guarded(error, [&]() -> Tensor * {
    auto added = bias ? std::optional<Tensor>(*bias) : std::nullopt;
    return new Tensor(Dense::apply(*xs, *weight, added, turned, reinterpret_cast<int64_t>(work)));
  });
}
}
