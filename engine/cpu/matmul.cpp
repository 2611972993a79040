// engine/cpu/matmul.cpp - checks a product, and chooses the path it takes.
//
// GFLOP/s on one core of a Zen 4 (117 is the peak of its fused multiply-adds in fp32, 234 of vdpbf16ps), geometric mean
// over nine ViT products (4160 and 1576 rows; widths 192, 384, 576, 768, 1152, 1536):
//
//                            y = x w^T    y = x w    dW = dy^T x
//   fp32, avx512                101         101          88
//   fp32, avx2                   99          97          75
//   fp32, OpenBLAS 0.3.21        86          87          78
//   bf16, converted to fp32     101         104          94
//   bf16, vdpbf16ps             189         195         169
//
// So fp32 takes the own kernels, which also fuse epilogues; OpenBLAS stays as a path for comparisons. bf16 takes AMX
// where the machine grants it, vdpbf16ps where that is faster than fp32 (features.h), and is converted while packing
// elsewhere.
#include "engine/cpu/matmul.h"

#include <utility>

#include "engine/cpu/features.h"
#include "engine/cpu/kernels.h"

#define EVERGRAD_KERNEL_BODY "engine/cpu/matmul.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {

void check_type(const TensorView& x, const char* name, bool allowed, const char* wanted) {
  check(allowed, Kind::dtype,
        [&] { return cat("matmul on cpu: ", name, " is ", x, ", but has to be ", wanted, ": cast it first"); });
}

void check_size(const TensorView& x, const char* name, std::int64_t wanted) {
  check(bool(x) || wanted == 0, Kind::shape, [&] { return cat("matmul on cpu: the epilogue needs ", name); });
  check(!x || x.size() == wanted, Kind::shape,
        [&] { return cat("matmul on cpu: ", name, " is ", x, ", but has to hold ", wanted, " elements"); });
}

void check_epilogue(const Matmul& m, std::int64_t rows, std::int64_t cols) {
  const bool biased = m.epilogue == Epilogue::bias || m.epilogue == Epilogue::bias_gelu;
  const bool with_aux = m.epilogue == Epilogue::bias_gelu || m.epilogue == Epilogue::dgelu;
  const bool with_grad = m.epilogue == Epilogue::bias_grad_a || (m.epilogue == Epilogue::dgelu && m.bias_grad);
  if (biased) {
    check_size(m.bias, "bias", cols);
    check_type(m.bias, "bias", m.bias.dtype == m.a.dtype, "of the type of a");
  }
  if (with_aux) {
    check_size(m.aux, "aux", rows * cols);
    check_type(m.aux, "aux", m.aux.dtype == m.a.dtype, "of the type of a");
  }
  if (with_grad) {
    check_size(m.bias_grad, "bias_grad", m.epilogue == Epilogue::dgelu ? cols : rows);
    check_type(m.bias_grad, "bias_grad", m.bias_grad.dtype == DType::f32 || m.bias_grad.dtype == DType::bf16,
               "f32 or bf16");
  }
  check(m.epilogue != Epilogue::bias_grad_a || m.transpose_a, Kind::usage, [] {
    return std::string("matmul on cpu: the epilogue bias_grad_a is for weight gradients dY^T X: set transpose_a");
  });
}

const TileKernel& kernel_of(MatmulPath path) {
#if defined(__x86_64__)
  switch (path) {
    case MatmulPath::avx2: return avx2::tile_kernel();
    case MatmulPath::avx512: return avx512::tile_kernel();
    case MatmulPath::dot: return dot_kernel();
    case MatmulPath::amx: return amx_kernel();
    default: break;
  }
#endif
  (void)path;
  return generic::tile_kernel();
}

void run(MatmulPath path, const Matmul& m) {
  const MatmulPlan plan(m);
  const EpilogueFn epilogue = choose_epilogue(m);
#if defined(EVERGRAD_HAVE_OPENBLAS)
  if (path == MatmulPath::blas) return run_blas(m, plan, epilogue);
#endif
  run_tiled(m, plan, kernel_of(path), epilogue);
}

MatmulPath vector_path() {
  return isa() == Isa::avx512 ? MatmulPath::avx512 : isa() == Isa::avx2 ? MatmulPath::avx2 : MatmulPath::generic;
}

MatmulPath choose_path(DType operands) {
  // Even EVERGRAD_CPU=avx512 means what it says: no instructions beyond.
  static const bool lowered = [] {
    const char* const text = std::getenv("EVERGRAD_CPU");
    return text && *text;
  }();
  if (operands == DType::bf16 && isa() == Isa::avx512 && !lowered) {
    if (features().amx_bf16) return MatmulPath::amx;
    if (features().bf16_dot_fast) return MatmulPath::dot;
  }
  return vector_path();
}

}  // namespace

MatmulPlan::MatmulPlan(const Matmul& m) {
  check_type(m.a, "a", m.a.dtype == DType::f32 || m.a.dtype == DType::bf16, "f32 or bf16");
  check_type(m.b, "b", m.b.dtype == m.a.dtype, "of the type of a");
  check_type(m.c, "c", m.c.dtype == DType::f32 || m.c.dtype == m.a.dtype, "f32, or of the type of a");
  rows = m.transpose_a ? m.a.cols() : m.a.rows();
  depth = m.transpose_a ? m.a.rows() : m.a.cols();
  cols = m.transpose_b ? m.b.rows() : m.b.cols();
  check((m.transpose_b ? m.b.cols() : m.b.rows()) == depth && m.c.rows() == rows && m.c.cols() == cols, Kind::shape,
        [&] {
          return cat("matmul on cpu: ", m.a, m.transpose_a ? " transposed" : "", " times ", m.b,
                     m.transpose_b ? " transposed" : "", " into ", m.c, " does not fit");
        });
  check_epilogue(m, rows, cols);
  a = {m.a.data, m.a.dtype, m.a.cols(), !m.transpose_a};
  b = {m.b.data, m.b.dtype, m.b.cols(), m.transpose_b};
}

const char* to_string(MatmulPath path) {
  switch (path) {
    case MatmulPath::generic: return "generic";
    case MatmulPath::avx2: return "avx2";
    case MatmulPath::avx512: return "avx512";
    case MatmulPath::blas: return "OpenBLAS";
    case MatmulPath::dot: return "vdpbf16ps";
    case MatmulPath::amx: return "AMX";
  }
  return "?";
}

MatmulPath matmul_path(DType operands) { return choose_path(operands); }

std::vector<MatmulPath> matmul_paths(DType operands) {
  std::vector<MatmulPath> paths{MatmulPath::generic};
  if (isa() >= Isa::avx2) paths.push_back(MatmulPath::avx2);
  if (isa() >= Isa::avx512) paths.push_back(MatmulPath::avx512);
#if defined(EVERGRAD_HAVE_OPENBLAS)
  if (operands == DType::f32) paths.push_back(MatmulPath::blas);
#endif
  if (operands == DType::bf16 && isa() == Isa::avx512) {
    if (features().avx512_bf16) paths.push_back(MatmulPath::dot);
    if (features().amx_bf16) paths.push_back(MatmulPath::amx);
  }
  return paths;
}

void matmul_on(MatmulPath path, const Matmul& m) {
  for (const MatmulPath known : matmul_paths(m.a.dtype))
    if (known == path) return run(path, m);
  fail(Kind::device, cat("matmul on cpu: no path ", to_string(path), " for ", m.a.dtype,
                         " on this machine and in this build: see `evergrad info`"));
}

void matmul(const Matmul& m, Stream) { run(matmul_path(m.a.dtype), m); }

}  // namespace eg::cpu
