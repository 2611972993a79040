// apps/examples/autograd.cpp - a new differentiable operation, and the proof that its gradient is right.
//
//   build/autograd
//
// The squared rectifier y = max(x, 0)^2 of Primer (So et al. 2021, arXiv:2109.08668). Its derivative is 2 max(x, 0).
#include <cstdio>

#include <evergrad/autograd/apply.h>      // Op: what an operation declares; apply: runs it and puts it on the tape
#include <evergrad/autograd/functions.h>  // the operations that exist: linear, mean, ...
#include <evergrad/autograd/gradcheck.h>
#include <evergrad/autograd/ops/checks.h>  // argument checks with good messages; result: memory for an output

struct SquaredRelu {
  static constexpr const char* name = "squared_relu";
  static constexpr std::size_t arity = 1, results = 1;  // inputs and outputs
  using In = std::array<eg::Tensor, arity>;
  using Out = std::array<eg::Tensor, results>;
  struct Attrs {};  // hyper-parameters; this operation has none
  struct Saved {    // what backward needs of the forward pass, and nothing else
    eg::Tensor x;
  };

  /// Runs first. Plain loops need memory that the host can read; an operation for GPUs calls kernels instead.
  static void check(const In& in, const Attrs&) {
    eg::ops::require_activation(name, "x", in[0]);
    eg::check(in[0].device().is_host() && in[0].dtype() != eg::DType::bf16, eg::Kind::device,
              [&] { return eg::cat(name, " is written for f32 and f64 on the host, not for ", in[0]); });
  }
  static Out forward(const In& in, const Attrs&, Saved* saved) {
    const eg::Tensor y = eg::ops::result(in[0], in[0].shape());
    for_each_type(in[0], [&]<class T>(const T* x) {
      for (std::int64_t i = 0; i < y.size(); ++i) y.data_as<T>()[i] = x[i] > 0 ? x[i] * x[i] : T(0);
    });
    if (saved) saved->x = in[0];  // null: nobody will ask for a gradient
    return {y};
  }
  /// dx = dy 2 max(x, 0). The tape says where dx goes, and whether to add to what stands there.
  static void backward(const Out& dy, const Saved& saved, const Attrs&, const std::array<eg::Destination, arity>& to) {
    if (!to[0].wanted) return;
    for_each_type(saved.x, [&]<class T>(const T* x) {
      for (std::int64_t i = 0; i < saved.x.size(); ++i) {
        const T dx = x[i] > 0 ? 2 * x[i] * dy[0].data_as<T>()[i] : T(0);
        T& slot = to[0].view.as<T>()[i];
        slot = to[0].accumulate ? slot + dx : dx;
      }
    });
  }
  template <class F>
  static void for_each_type(const eg::Tensor& x, F&& body) {
    if (x.dtype() == eg::DType::f64)
      body(x.data_as<double>());  // the reference device, where gradients are checked
    else
      body(x.data_as<float>());
  }
};

eg::Tensor squared_relu(const eg::Tensor& x) { return eg::apply<SquaredRelu>({x})[0]; }

int main() {
  // d(sum r y)/dx for random r, by the tape and by central differences, in double precision.
  const eg::Tensor x =
      eg::Tensor::from(std::vector<double>{-1.5, -0.1, 0.3, 2.0, 0.7, -3.0}, {2, 3}, eg::DType::f64, eg::kReference);
  const auto f = [](std::span<const eg::Tensor> in) { return std::vector<eg::Tensor>{squared_relu(in[0])}; };
  const eg::GradcheckResult checked = eg::gradcheck(f, {&x, 1}, {true});
  std::printf("gradient check: %ld entries, largest error %.3f of its bound %s\n", long(checked.compared),
              checked.worst, checked.worst <= 1.0 ? "(passed)" : checked.where.c_str());

  // On a tape it works like any other operation: d/dx mean(relu(x)^2) = 2 max(x, 0) / 6.
  eg::Tape tape;
  eg::Tensor leaf = x;
  const eg::Tensor dx = eg::Tensor::zeros(x.shape(), x.dtype(), x.device());
  tape.watch(leaf, dx.view());
  const eg::Tensor loss = eg::mean(squared_relu(leaf));
  eg::backward(tape, loss);
  std::printf("mean(relu(x)^2) = %.4f, gradient", loss.to_host()[0]);
  for (const double g : dx.to_host()) std::printf(" %.3f", g);
  std::printf("\n");
  return checked.worst <= 1.0 ? 0 : 1;
}
