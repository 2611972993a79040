// tests/autograd/harness.h - runs a case on a device: inputs drawn once, rounded to bf16, so that every device and
// every dtype starts from the same values and differences are the op's own.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "autograd/apply.h"
#include "engine/memory.h"
#include "tests/autograd/suite.h"

namespace eg::test {

Hosts draw_inputs(const std::vector<Arg>& args);
/// The tensor that argument `arg` becomes on a device whose activation type is `dtype`.
Tensor place(const Arg& arg, const Host& value, Device device, DType dtype);
/// Values times 1 +- u, signs drawn by `draw`: what rounding the inputs could have done.
Host perturbed(const Host& value, double u, std::uint32_t draw);
double norm(const std::vector<double>& v);
double distance(const std::vector<double>& a, const std::vector<double>& b);
bool is_float_draw(Draw draw);

/// What an op gives: outputs, then gradients (empty for arguments without one), as values and as raw bytes.
struct Ran {
  std::vector<std::vector<double>> outputs, gradients;
  std::vector<DType> output_types, gradient_types;
  std::vector<std::vector<std::uint8_t>> bytes;
};

std::vector<std::uint8_t> bytes_of(const Tensor& t);

/// Attributes may name the activation type of their device.
template <class A>
A adapted(A attrs, DType dtype) {
  if constexpr (requires { attrs.out; }) attrs.out = dtype;
  return attrs;
}

template <Op O>
typename O::In place_all(const Case<O>& c, const Hosts& values, Device device, DType dtype) {
  typename O::In in;
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = place(c.args[i], values[i], device, dtype);
  return in;
}

/// Which arguments of a case can have a gradient.
template <Op O>
std::vector<bool> wanted_inputs(const Case<O>& c) {
  constexpr auto differentiable = detail::differentiable_inputs<O>();
  bool cropped = false;
  for (const Arg& a : c.args) cropped = cropped || a.draw == Draw::crop;
  std::vector<bool> wanted(c.args.size());
  for (std::size_t i = 0; i < wanted.size(); ++i)
    wanted[i] = differentiable[i] && !cropped && is_float_draw(c.args[i].draw);
  return wanted;
}

/// Forward and backward of one case. `fn` maps inputs to outputs; the gradients that reach the outputs are drawn once
/// and scaled by 1 +- u when `u` is set.
template <Op O, class F>
Ran run_case(const Case<O>& c, const Hosts& values, Device device, DType dtype, const F& fn, double u = 0.0,
             std::uint32_t draw = 0) {
  typename O::In in = place_all<O>(c, values, device, dtype);
  const std::vector<bool> wanted = wanted_inputs<O>(c);
  Tape tape;
  std::array<Tensor, O::arity> gradients;
  bool any = false;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (!wanted[i]) continue;
    any = true;
    const bool parameter = c.args[i].draw == Draw::parameter;
    gradients[i] = Tensor::empty(in[i].shape(), parameter ? device.statistic() : dtype, device);
    tape.watch(in[i], gradients[i].view());
  }
  const typename O::Out out = fn(in, adapted(c.attrs, dtype));
  Ran ran;
  std::vector<Tensor> outputs, incoming;
  for (std::size_t i = 0; i < out.size(); ++i) {
    ran.outputs.push_back(out[i].to_host());
    ran.output_types.push_back(out[i].dtype());
    ran.bytes.push_back(bytes_of(out[i]));
    if (!is_float(out[i].dtype())) continue;
    const Arg arg{out[i].shape(), Draw::activation, 0.0, std::int64_t(i)};
    Host dy = draw_inputs({{}, arg})[1];
    if (u != 0.0) dy = perturbed(dy, u, draw + 100);
    outputs.push_back(out[i]);
    incoming.push_back(Tensor::from(std::span<const double>(dy.v), dy.shape, out[i].dtype(), device));
  }
  if (any) backward(tape, outputs, incoming);
  for (std::size_t i = 0; i < in.size(); ++i) {
    ran.gradients.push_back(gradients[i] ? gradients[i].to_host() : std::vector<double>());
    ran.gradient_types.push_back(gradients[i] ? gradients[i].dtype() : DType::f64);
    if (gradients[i]) ran.bytes.push_back(bytes_of(gradients[i]));
  }
  return ran;
}

template <Op O>
Ran run_case(const Case<O>& c, const Hosts& values, Device device, DType dtype, double u = 0.0,
             std::uint32_t draw = 0) {
  return run_case<O>(
      c, values, device, dtype, [](const auto& in, const auto& attrs) { return apply<O>(in, attrs); }, u, draw);
}

}  // namespace eg::test
