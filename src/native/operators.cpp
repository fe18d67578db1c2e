// Operators of libtorch that its C bindings leave out, called by name through the dispatcher: products
// with packed matrices (oneDNN, FBGEMM). A packed matrix is an IValue that Rust holds by its pointer. And a
// dense layer that learns, whose products, those of its gradients too, are made by Rust.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <optional>
#include <string>

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

using at::Tensor;
using c10::IValue;

IValue call(const char *name, c10::Stack stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
  return stack.at(0);
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
