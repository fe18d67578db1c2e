// What the rooms in C++ share. They reach what libtorch's C bindings leave out.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <cstring>

using at::Tensor;
using c10::IValue;

// An operator by its name; the first of its results.
inline IValue call(const char *name, c10::Stack stack, const char *overload = "") {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).callBoxed(stack);
  return stack.at(0);
}

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
