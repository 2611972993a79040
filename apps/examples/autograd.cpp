// apps/examples/autograd.cpp - a new differentiable operation, and the proof that its gradient is right.
//
//   build/autograd
//
// The squared rectifier y = max(x, 0)^2 of Primer (So et al. 2021, arXiv:2109.08668). Its derivative is 2 max(x, 0).
#include <cstdio>

#include <evergrad/autograd/apply.h>      // Op: what an operation declares; apply: runs it and puts it on the tape
#include <evergrad/autograd/functions.h>  // the operations that exist: linear, mean, ...
#include <evergrad/autograd/gradcheck.h>
#include <evergrad/autograd/ops/host.h>  // for operations written as plain loops

using namespace eg;

struct SquaredRelu : ops::HostOp<1, 1> {  // one input, one output
  static constexpr const char* name = "squared_relu";
  using Saved = Tensor;  // what backward needs of the forward pass, and nothing else: x

  static void check(const In& in, const Attrs&) { ops::require_host(name, "x", in[0]); }
  static Out forward(const In& in, const Attrs&, Saved* saved) {
    const Tensor y = ops::result(in[0], in[0].shape());
    ops::with_numbers(in[0], [&]<class T>(const T* x) {
      for (std::int64_t i = 0; i < y.size(); ++i) y.data_as<T>()[i] = x[i] > 0 ? x[i] * x[i] : T(0);
    });
    if (saved) *saved = in[0];  // null: nobody will ask for a gradient
    return {y};
  }
  /// dx = dy 2 max(x, 0). The tape says where dx goes, and whether to add to what stands there.
  static void backward(const Out& dy, const Saved& saved, const Attrs&, const Destinations& to) {
    ops::with_numbers(saved, [&]<class T>(const T* x) {
      const T* const g = dy[0].data_as<T>();
      ops::write_gradients<T>(to[0], [&](std::int64_t i) { return x[i] > 0 ? 2 * x[i] * g[i] : T(0); });
    });
  }
};

Tensor squared_relu(const Tensor& x) { return apply<SquaredRelu>({x})[0]; }

int main() {
  // d(sum r y)/dx for random r, by the tape and by central differences, in double precision.
  Tensor x = Tensor::from(std::vector<double>{-1.5, -0.1, 0.3, 2.0, 0.7, -3.0}, {2, 3}, DType::f64, kReference);
  const auto f = [](std::span<const Tensor> in) { return std::vector<Tensor>{squared_relu(in[0])}; };
  const GradcheckResult checked = gradcheck(f, {&x, 1}, {true});
  std::printf("gradient check: %ld entries, largest error %.3f of its bound %s\n", long(checked.compared),
              checked.worst, checked.worst <= 1.0 ? "(passed)" : checked.where.c_str());

  // On a tape it works like any other operation: d/dx mean(relu(x)^2) = 2 max(x, 0) / 6.
  Tape tape;
  const Tensor dx = Tensor::zeros(x.shape(), x.dtype(), x.device());
  tape.watch(x, dx.view());
  const Tensor loss = mean(squared_relu(x));
  backward(tape, loss);
  std::printf("mean(relu(x)^2) = %.4f, gradient", loss.to_host()[0]);
  for (const double g : dx.to_host()) std::printf(" %.3f", g);
  std::printf("\n");
  return checked.worst <= 1.0 ? 0 : 1;
}
