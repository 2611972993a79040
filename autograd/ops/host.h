// autograd/ops/host.h - for an operation written as plain loops: it runs on the host, in f32 and in f64, without kernels.
// apps/examples/autograd.cpp is one.
#pragma once
#include "autograd/ops/checks.h"

namespace eg::ops {

/// The types that every card declares, for one with these numbers of inputs and outputs. A card with hyper-parameters
/// declares its own Attrs.
template <std::size_t Inputs, std::size_t Results>
struct HostOp {
  static constexpr std::size_t arity = Inputs, results = Results;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  using Destinations = std::array<Destination, arity>;
  struct Attrs {};
};

/// Throws Error{device} unless x is f32 or f64 in memory that the host reads.
inline void require_host(std::string_view op, std::string_view argument, const Tensor& x) {
  require_activation(op, argument, x);
  check(x.device().is_host() && x.dtype() != DType::bf16, Kind::device, [&] {
    return cat(op, ": ", argument, " is ", x, ", but this operation is written for the host; use f32 on ", kCpu,
               ", f64 on ", kReference, ", or give it a kernel");
  });
}

/// Calls body(const T*) with the numbers of x, T being double on the reference device and float elsewhere.
template <class F>
void with_numbers(const Tensor& x, F&& body) {
  if (x.dtype() == DType::f64)
    body(static_cast<const double*>(x.data_as<double>()));
  else
    body(static_cast<const float*>(x.data_as<float>()));
}

/// Gradient i is of(i): stored, added to what stands there, or not computed at all, as the tape wants it.
template <class T, class F>
void write_gradients(const Destination& to, F&& of) {
  if (!to.wanted) return;
  T* const out = to.view.as<T>();
  for (std::int64_t i = 0; i < to.view.size(); ++i) out[i] = (to.accumulate ? out[i] : T(0)) + of(i);
}

}  // namespace eg::ops
