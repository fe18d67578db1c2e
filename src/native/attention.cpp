// Attention that learns: its forward and backward pass are made by Rust.

#include "bridge.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

// Numbers [N, A, t, d] as they lie in memory; those of a token lie side by side.
struct Heads {
  const float *values;
  int64_t size[4];
  int64_t apart[3];
};

// Query, key and value -> out [N, t, A, d] and for each query the logarithm of what its weights were divided
// by, logs [N, A, t]; by the functions behind `work`, whose type both know.
extern "C" void vedm_attend(const void *work, const Heads given[3], double scale, float *out, float *logs);

// Query, key, value, result and the gradient of the result -> the gradients of the first three, each
// [N, t or S, A, d].
extern "C" void vedm_attend_back(const void *work, const Heads given[5], double scale, const float *logs,
                                 float *query, float *key, float *value);

namespace {

Heads heads(const Tensor &xs) {
  Heads found{xs.const_data_ptr<float>()};
  for (int i = 0; i < 4; i++) found.size[i] = xs.size(i);
  for (int i = 0; i < 3; i++) found.apart[i] = xs.stride(i);
  return found;
}

// As large as xs [N, A, t, d], but lying as [N, t, A, d].
Tensor like(const Tensor &xs) {
  return at::empty({xs.size(0), xs.size(2), xs.size(1), xs.size(3)}, xs.options().requires_grad(false));
}

struct Attention : torch::autograd::Function<Attention> {
  using Context = torch::autograd::AutogradContext;

  static Tensor forward(Context *context, const Tensor &query, const Tensor &key, const Tensor &value,
                        double scale, int64_t work) {
    auto out = like(query);
    auto logs = at::empty({query.size(0), query.size(1), query.size(2)}, out.options());
    const Heads given[] = {heads(query), heads(key), heads(value)};
    vedm_attend(reinterpret_cast<const void *>(work), given, scale, out.mutable_data_ptr<float>(),
                logs.mutable_data_ptr<float>());
    auto turned = out.transpose(1, 2);
    context->save_for_backward({query, key, value, turned, logs});
    context->saved_data["scale"] = scale;
    context->saved_data["work"] = work;
    return turned;
  }

  static torch::autograd::variable_list backward(Context *context, torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto work = reinterpret_cast<const void *>(context->saved_data["work"].toInt());
    auto own = gradients[0].stride(3) == 1 ? gradients[0] : gradients[0].contiguous();
    const Heads given[] = {heads(saved[0]), heads(saved[1]), heads(saved[2]), heads(saved[3]), heads(own)};
    Tensor found[] = {like(saved[0]), like(saved[1]), like(saved[2])};
    vedm_attend_back(work, given, context->saved_data["scale"].toDouble(), saved[4].const_data_ptr<float>(),
                     found[0].mutable_data_ptr<float>(), found[1].mutable_data_ptr<float>(),
                     found[2].mutable_data_ptr<float>());
    auto turned = [&](int i) { return found[i].transpose(1, 2); };
    return {turned(0), turned(1), turned(2), Tensor(), Tensor()};
  }
};

}  // namespace

extern "C" {

// softmax(q kᵀ · scale) v by `work`; all of it f32 on the CPU, the numbers of a token side by side.
// query [N, A, t, d], key and value [N, A, S, d] -> [N, A, t, d]
Tensor *vedm_attention(const Tensor *query, const Tensor *key, const Tensor *value, double scale,
                       const void *work, char **error) {
  return guarded(error, [&]() -> Tensor * {
    return new Tensor(Attention::apply(*query, *key, *value, scale, reinterpret_cast<int64_t>(work)));
  });
}
}
