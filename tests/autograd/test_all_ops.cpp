// tests/autograd/test_all_ops.cpp - every op of AllOps, on every case of its suite, against everything that can judge
// it.
#include <doctest/doctest.h>

#include "autograd/gradcheck.h"
#include "autograd/ops/all.h"
#include "engine/parallel.h"
#include "tests/autograd/harness.h"
#include "tests/tolerance.h"

namespace eg::test {

namespace {

/// Calls f(case, inputs) under a doctest label that names op and case.
template <class F>
void for_each_case(const F& f) {
  for_each_type(AllOps{}, [&]<Op O>(std::type_identity<O>) {
    const Suite<O> all = suite<O>();
    for (const Case<O>& c : all.cases) {
      INFO(O::name << ": " << c.label);
      REQUIRE(c.args.size() == O::arity);
      f.template operator()<O>(all, c, draw_inputs(c.args));
    }
  });
}

/// Entrywise, for double against double, relative to the largest entry.
void same_in_double(const std::vector<double>& a, const std::vector<double>& b, const std::string& what) {
  INFO(what);
  REQUIRE(a.size() == b.size());
  double largest = 1.0;
  for (const double v : b) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b[i]) <= kSameInDouble * largest)) {
      CAPTURE(i);
      CHECK(a[i] == doctest::Approx(b[i]).epsilon(kSameInDouble));
      return;
    }
}

template <Op O>
std::int64_t longest_sum(const Case<O>& c) {
  std::int64_t k = 1;
  for (const Arg& a : c.args)
    if (a.draw != Draw::absent) k = std::max({k, a.shape.rows(), a.shape.cols()});
  return k;
}

/// GELU approximates a function, and near -0.75, where the function is flat, no change of the input stands for that.
template <Op O>
double function_error(const Case<O>& c, const Hosts& in) {
  double sum = 0.0;
  if constexpr (std::is_same_v<O, ops::Gelu>)
    for (const double x : in[0].v) sum += std::pow(gelu_error(c.attrs.kind, x), 2);
  return std::sqrt(sum);
}

template <Op O>
void agrees(const Case<O>& c, const Hosts& in, DType dtype) {
  const Ran exact = run_case<O>(c, in, kReference, DType::f64);
  const Ran ran = run_case<O>(c, in, kCpu, dtype);
  const double u = unit_roundoff(dtype);
  std::vector<double> outputs(exact.outputs.size()), gradients(exact.gradients.size());
  for (std::uint32_t draw = 0; draw < 6; ++draw) {
    Hosts moved = in;
    for (std::size_t i = 0; i < in.size(); ++i)
      if (is_float_draw(c.args[i].draw)) moved[i] = perturbed(in[i], u, draw * 8 + std::uint32_t(i));
    const Ran other = run_case<O>(c, moved, kReference, DType::f64, u, draw);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      outputs[i] = std::max(outputs[i], distance(other.outputs[i], exact.outputs[i]));
    for (std::size_t i = 0; i < gradients.size(); ++i)
      gradients[i] = std::max(gradients[i], distance(other.gradients[i], exact.gradients[i]));
  }
  const std::int64_t k = longest_sum<O>(c);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    INFO("output " << i << " in " << cat(dtype));
    if (!is_float(ran.output_types[i])) continue;  // predictions may differ where two logits round to one value
    CHECK(distance(ran.outputs[i], exact.outputs[i]) <=
          backward_stable_bound(outputs[i], norm(exact.outputs[i]), k, dtype, ran.output_types[i]) +
              function_error<O>(c, in));
  }
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    INFO("gradient " << i << " in " << cat(dtype));
    CHECK(distance(ran.gradients[i], exact.gradients[i]) <=
          backward_stable_bound(gradients[i], norm(exact.gradients[i]), k, dtype, ran.gradient_types[i]));
  }
}

std::string error_text(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "";
}

template <Op O>
void names(const std::string& word, typename O::In in, const typename O::Attrs& attrs) {
  const std::string text = error_text([&] { apply<O>(in, attrs); });
  INFO("bad " << word << " gave: " << text);
  CHECK(text.find(word) != std::string::npos);
  CHECK(text.find(O::name) != std::string::npos);
}

}  // namespace

TEST_CASE("every op: forward equals its definition in double (reference)") {
  for_each_case([]<Op O>(const Suite<O>& all, const Case<O>& c, const Hosts& in) {
    const Ran ran = run_case<O>(c, in, kReference, DType::f64);
    const Hosts expected = all.oracle(in, adapted(c.attrs, DType::f64));
    REQUIRE(expected.size() == ran.outputs.size());
    for (std::size_t i = 0; i < expected.size(); ++i) same_in_double(ran.outputs[i], expected[i].v, cat("output ", i));
  });
}

TEST_CASE("every op: gradients equal central differences (reference)") {
  for_each_case([]<Op O>(const Suite<O>&, const Case<O>& c, const Hosts& in) {
    if (!c.gradcheck) return;
    const auto tensors = place_all<O>(c, in, kReference, DType::f64);
    const auto result = gradcheck(
        [&](std::span<const Tensor> t) {
          typename O::In now;
          std::copy(t.begin(), t.end(), now.begin());
          const auto out = apply<O>(now, adapted(c.attrs, DType::f64));
          return std::vector<Tensor>(out.begin(), out.end());
        },
        tensors, wanted_inputs<O>(c), 24);
    INFO(result.where);
    CHECK(result.worst <= 1.0);
    CHECK((result.compared > 0 || c.args[0].shape.size() == 0));
  });
}

TEST_CASE("every fused op: equals its composed twin, forward and backward (reference)") {
  for_each_case([]<Op O>(const Suite<O>& all, const Case<O>& c, const Hosts& in) {
    if (!all.twin) return;
    const Ran fused = run_case<O>(c, in, kReference, DType::f64);
    const Ran composed = run_case<O>(c, in, kReference, DType::f64, all.twin);
    for (std::size_t i = 0; i < fused.outputs.size(); ++i)
      same_in_double(fused.outputs[i], composed.outputs[i], cat("output ", i));
    for (std::size_t i = 0; i < fused.gradients.size(); ++i)
      same_in_double(fused.gradients[i], composed.gradients[i], cat("gradient ", i));
  });
}

TEST_CASE("every op: cpu f32 agrees with the reference") {
  for_each_case([]<Op O>(const Suite<O>&, const Case<O>& c, const Hosts& in) { agrees<O>(c, in, DType::f32); });
}

TEST_CASE("every op: cpu bf16 agrees with the reference") {
  for_each_case([]<Op O>(const Suite<O>&, const Case<O>& c, const Hosts& in) { agrees<O>(c, in, DType::bf16); });
}

TEST_CASE("every op: the same call gives the same bits, on any number of threads (cpu)") {
  const int threads = num_threads();
  for_each_case([]<Op O>(const Suite<O>&, const Case<O>& c, const Hosts& in) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(dtype);
      set_num_threads(1);
      const Ran one = run_case<O>(c, in, kCpu, dtype), again = run_case<O>(c, in, kCpu, dtype);
      set_num_threads(3);
      const Ran three = run_case<O>(c, in, kCpu, dtype);
      CHECK(one.bytes == again.bytes);
      CHECK(one.bytes == three.bytes);
    }
  });
  set_num_threads(threads);
}

TEST_CASE("every op: a gradient added to what stands there equals the gradient plus that (reference)") {
  for_each_case([]<Op O>(const Suite<O>&, const Case<O>& c, const Hosts& in) {
    const std::vector<bool> wanted = wanted_inputs<O>(c);
    if (std::find(wanted.begin(), wanted.end(), true) == wanted.end()) return;
    const Ran plain = run_case<O>(c, in, kReference, DType::f64);
    // All inputs accumulate, then each alone: kernels share one flag among several gradients.
    for (std::size_t only = 0; only <= wanted.size(); ++only) {
      if (only < wanted.size() && !wanted[only]) continue;
      auto tensors = place_all<O>(c, in, kReference, DType::f64);
      Tape tape;
      std::array<Tensor, O::arity> gradients;
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (!wanted[i]) continue;
        const std::vector<double> ones(std::size_t(tensors[i].size()), 1.0);
        gradients[i] = Tensor::from(std::span<const double>(ones), tensors[i].shape(), DType::f64, kReference);
        tape.watch(tensors[i], gradients[i].view(), only == wanted.size() || only == i);
      }
      const auto out = apply<O>(tensors, adapted(c.attrs, DType::f64));
      std::vector<Tensor> outputs, incoming;
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (!is_float(out[i].dtype())) continue;
        const Host dy = draw_inputs({{}, {out[i].shape(), Draw::activation, 0.0, std::int64_t(i)}})[1];
        outputs.push_back(out[i]);
        incoming.push_back(Tensor::from(std::span<const double>(dy.v), dy.shape, DType::f64, kReference));
      }
      backward(tape, outputs, incoming);
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (!wanted[i]) continue;
        std::vector<double> expected = plain.gradients[i];
        if (only == wanted.size() || only == i)
          for (double& v : expected) v += 1.0;
        same_in_double(gradients[i].to_host(), expected, cat("gradient ", i, ", accumulating ", only));
      }
    }
  });
}

TEST_CASE("every op: each gradient alone equals the same gradient among all (reference)") {
  for_each_case([]<Op O>(const Suite<O>&, const Case<O>& c, const Hosts& in) {
    const std::vector<bool> wanted = wanted_inputs<O>(c);
    const Ran plain = run_case<O>(c, in, kReference, DType::f64);
    for (std::size_t only = 0; only < wanted.size(); ++only) {
      if (!wanted[only]) continue;
      auto tensors = place_all<O>(c, in, kReference, DType::f64);
      Tape tape;
      const Tensor gradient = Tensor::empty(tensors[only].shape(), DType::f64, kReference);
      tape.watch(tensors[only], gradient.view());
      const auto out = apply<O>(tensors, adapted(c.attrs, DType::f64));
      std::vector<Tensor> outputs, incoming;
      for (const Tensor& y : out) {
        if (!is_float(y.dtype())) continue;
        const Host dy = draw_inputs({{}, {y.shape()}})[1];
        outputs.push_back(y);
        incoming.push_back(Tensor::from(std::span<const double>(dy.v), dy.shape, DType::f64, kReference));
      }
      backward(tape, outputs, incoming);
      same_in_double(gradient.to_host(), plain.gradients[only], cat("gradient ", only));
    }
  });
}

TEST_CASE("every op: bad inputs throw an error that names op and argument (cpu)") {
  for_each_type(AllOps{}, []<Op O>(std::type_identity<O>) {
    const Suite<O> all = suite<O>();
    REQUIRE(all.arguments.size() == O::arity);
    for (const Case<O>& c : all.cases) {
      INFO(O::name << ": " << c.label);
      const Hosts values = draw_inputs(c.args);
      const auto in = place_all<O>(c, values, kCpu, DType::f32);
      const auto attrs = adapted(c.attrs, DType::f32);
      const auto elsewhere = place_all<O>(c, values, kReference, DType::f64);
      for (std::size_t i = 0; i < O::arity; ++i) {
        if (!in[i]) continue;
        auto wrong = in;
        const bool whole = !is_float(in[i].dtype());
        wrong[i] = Tensor::zeros(in[i].shape(), whole ? DType::f32 : DType::i32, kCpu);
        if (!(O::name == "patchify" && i == 0 && whole)) names<O>(all.arguments[i], wrong, attrs);
        if (i == 0) continue;
        Shape wider = in[i].shape();
        wider[-1] += 1;
        wrong[i] = Tensor::zeros(wider, in[i].dtype(), kCpu);
        names<O>(all.arguments[i], wrong, attrs);
        wrong[i] = elsewhere[i];
        names<O>(all.arguments[i], wrong, attrs);
      }
      auto without = in;
      without[0] = {};
      names<O>(all.arguments[0], without, attrs);
    }
    const Case<O>& first = all.cases.front();
    for (const Bad<O>& bad : all.bad) {
      auto in = place_all<O>(first, draw_inputs(first.args), kCpu, DType::f32);
      auto attrs = adapted(first.attrs, DType::f32);
      bad.spoil(in, attrs);
      names<O>(bad.word, in, attrs);
    }
  });
}

}  // namespace eg::test
