// cuda/kernels/elementwise.cpp - host entries of elementwise.cu.
#include "cuda/kernels/elementwise.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

void run(const char* name, Elementwise what, const TensorView& a, const TensorView& b, const TensorView& out, Stream s,
         double value = 0.0, bool accumulate = false, const float* factor = nullptr) {
  ElementwiseParams p;
  p.a = operand(a), p.b = operand(b), p.out = operand(out);
  p.factor = factor, p.value = value, p.n = out.size(), p.accumulate = accumulate;
  p.wide = wide_access({&a, &b, &out});
  launch(name, elementwise_kernel(what), dim3(stream_blocks(p.n)), dim3(stream_threads(p.n)), 0, s, p);
}

}  // namespace

void cast(const Cast& a, Stream s) { run("cast", Elementwise::cast, a.from, {}, a.to, s); }
void fill(const Fill& a, Stream s) { run("fill", Elementwise::fill, {}, {}, a.x, s, a.value); }
void add(const Add& a, Stream s) { run("add", Elementwise::add, a.a, a.b, a.out, s); }
void axpy(const Axpy& a, Stream s) { run("axpy", Elementwise::axpy, a.x, {}, a.y, s, a.alpha); }
void scale_by(const ScaleBy& a, Stream s) {
  run("scale_by", Elementwise::scale_by, a.x, {}, a.y, s, 0.0, a.accumulate, a.factor.as<float>());
}
void gelu_fwd(const GeluFwd& a, Stream s) {
  run("gelu_fwd", a.kind == GeluKind::erf ? Elementwise::gelu_erf : Elementwise::gelu_tanh, a.x, {}, a.y, s);
}
void gelu_bwd(const GeluBwd& a, Stream s) {
  run("gelu_bwd", a.kind == GeluKind::erf ? Elementwise::gelu_grad_erf : Elementwise::gelu_grad_tanh, a.x, a.dy, a.dx,
      s, 0.0, a.accumulate);
}

}  // namespace eg::EVERGRAD_BACKEND
