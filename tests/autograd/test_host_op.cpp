// tests/autograd/test_host_op.cpp - what autograd/ops/host.h gives an operation that is written as plain loops.
#include <doctest/doctest.h>

#include "autograd/apply.h"
#include "autograd/functions.h"
#include "autograd/gradcheck.h"
#include "autograd/ops/host.h"

using namespace eg;

namespace {

/// y = x^3, and a gradient that is wrong by the factor `wrong`.
struct Cube : ops::HostOp<1, 1> {
  static constexpr const char* name = "cube";
  struct Attrs {
    double wrong = 1.0;
  };
  using Saved = Tensor;
  static void check(const In& in, const Attrs&) { ops::require_host(name, "x", in[0]); }
  static Out forward(const In& in, const Attrs&, Saved* saved) {
    const Tensor y = ops::result(in[0], in[0].shape());
    ops::with_numbers(in[0], [&]<class T>(const T* x) {
      for (std::int64_t i = 0; i < y.size(); ++i) y.data_as<T>()[i] = x[i] * x[i] * x[i];
    });
    if (saved) *saved = in[0];
    return {y};
  }
  static void backward(const Out& dy, const Saved& saved, const Attrs& a, const Destinations& to) {
    ops::with_numbers(saved, [&]<class T>(const T* x) {
      const T* const g = dy[0].data_as<T>();
      ops::write_gradients<T>(to[0], [&](std::int64_t i) { return T(a.wrong) * 3 * x[i] * x[i] * g[i]; });
    });
  }
};
Tensor values(DType dtype, Device device) { return Tensor::from(std::vector<double>{-2, 0.5, 3}, {3}, dtype, device); }

}  // namespace

TEST_CASE("host operation: its gradient is checked, and a wrong one is found") {
  const Tensor x = values(DType::f64, kReference);
  const auto worst = [&](double wrong) {
    const auto f = [&](std::span<const Tensor> in) { return std::vector<Tensor>{apply<Cube>({in[0]}, {wrong})[0]}; };
    return gradcheck(f, {&x, 1}, {true}).worst;
  };
  CHECK(worst(1.0) <= 1.0);
  CHECK(worst(1.001) > 1.0);
}

TEST_CASE("host operation: gradients are stored, added or left out, in f32 too") {
  const TensorView none;
  ops::write_gradients<float>({none, false, false}, [](std::int64_t) -> float { throw "not wanted"; });
  for (const bool accumulate : {false, true}) {
    Tensor x = values(DType::f32, kCpu);
    const Tensor dx = Tensor::from(std::vector<double>{10, 20, 30}, {3}, DType::f32, kCpu);
    Tape tape;
    tape.watch(x, dx.view(), accumulate);
    backward(tape, mean(apply<Cube>({x})[0]));  // 3 x^2 / 3
    CHECK(dx.to_host() == (accumulate ? std::vector<double>{14, 20.25, 39} : std::vector<double>{4, 0.25, 9}));
  }
}

TEST_CASE("host operation: a type that its loops are not written for is refused with the remedy") {
  std::string text;
  try {
    apply<Cube>({values(DType::bf16, kCpu)});
  } catch (const Error& e) { text = e.what(); }
  CHECK(text.find("cube: x is bf16[3] on cpu") != std::string::npos);
  CHECK(text.find("use f32 on cpu") != std::string::npos);
}
