// Operators of libtorch that its C bindings leave out, called by name through the dispatcher: products
// with packed matrices (oneDNN, FBGEMM). A packed matrix is an IValue that Rust holds by its pointer. And a
// dense layer whose products, those of its gradients too, are made by Rust.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <optional>
#include <string>

// a·bᵀ + bias of a [rows, inner] and b [columns, inner], each stored so or turned over, by the function
// `work` of Rust: `vedm_multiply` knows its type.
struct Matrix {
  const float *values;
  int64_t rows;
  bool transposed;
};
extern "C" void vedm_multiply(void *work, Matrix a, Matrix b, int64_t inner, const float *bias, float *out);

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
  auto numbers = call("aten::quantize_per_channel",
                      {weight, *scales, zeros, int64_t(0), int64_t(at::ScalarType::QInt8)});
  return prepack("quantized::linear_prepack", engine, numbers.toTensor(), bias);
}

struct Dense : torch::autograd::Function<Dense> {
  using Context = torch::autograd::AutogradContext;

  static Tensor times(void *work, Matrix a, Matrix b, int64_t inner, const float *bias, const Tensor &like) {
    auto out = at::empty({a.rows, b.rows}, like.options().requires_grad(false));
    vedm_multiply(work, a, b, inner, bias, out.mutable_data_ptr<float>());
    return out;
  }

  // xs [R, in], W stored as [out, in] or (turned) [in, out], b [out] -> [R, out]
  static Tensor forward(Context *context, const Tensor &xs, const Tensor &weight,
                        const std::optional<Tensor> &bias, bool turned, int64_t work) {
    context->save_for_backward({xs, weight});
    context->saved_data["turned"] = turned;
    context->saved_data["biased"] = bias.has_value();
    context->saved_data["work"] = work;
    auto function = reinterpret_cast<void *>(work);
    Matrix rows{xs.const_data_ptr<float>(), xs.size(0), false};
    Matrix columns{weight.const_data_ptr<float>(), weight.size(turned ? 1 : 0), turned};
    auto added = bias ? bias->const_data_ptr<float>() : nullptr;
    return times(function, rows, columns, xs.size(1), added, xs);
  }

  static torch::autograd::variable_list backward(Context *context, torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &xs = saved[0], &weight = saved[1];
    auto turned = context->saved_data["turned"].toBool();
    auto work = reinterpret_cast<void *>(context->saved_data["work"].toInt());
    auto gradient = gradients[0].contiguous();
    auto rows = gradient.size(0), inputs = xs.size(1), outputs = gradient.size(1);
    auto own = gradient.const_data_ptr<float>();
    Tensor of_xs, of_weight, of_bias;
    if (context->needs_input_grad(0)) {
      Matrix columns{weight.const_data_ptr<float>(), inputs, !turned};
      of_xs = times(work, {own, rows, false}, columns, outputs, nullptr, xs);
    }
    if (context->needs_input_grad(1)) {
      Matrix out{own, outputs, true}, in{xs.const_data_ptr<float>(), inputs, true};
      of_weight = times(work, turned ? in : out, turned ? out : in, rows, nullptr, xs);
    }
    if (context->saved_data["biased"].toBool() && context->needs_input_grad(2)) of_bias = gradient.sum(0);
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

// W [out, in], the scale of each output (f64, for int8), b [out] -> the packed matrix.
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
