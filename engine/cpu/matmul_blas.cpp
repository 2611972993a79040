// engine/cpu/matmul_blas.cpp - fp32 products by OpenBLAS, one thread per slice of rows, epilogue while the slice is
// warm.
#include "engine/cpu/matmul.h"

#if defined(EVERGRAD_HAVE_OPENBLAS)

#include <cblas.h>

#include <algorithm>

#include "engine/cpu/isa.h"

namespace eg::cpu {
namespace {

// Column sums of a [K, M] over chunks of K, as one partial each.
void sum_columns_of_a(const Matmul& m, const MatmulPlan& plan) {
  constexpr std::int64_t grain = 512;
  const std::int64_t width = plan.rows, count = chunks_of(plan.depth, grain);
  std::vector<float> partials(std::size_t(count * width), 0.0f);
  const float* const a = static_cast<const float*>(plan.a.data);
  parallel_for(plan.depth, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    float* const to = partials.data() + chunk * width;
    for (std::int64_t k = begin; k < end; ++k)
      for (std::int64_t j = 0; j < width; ++j) to[j] += a[k * width + j];
  });
  finish_bias_grad(m, partials.data(), count, width);
}

}  // namespace

void run_blas(const Matmul& m, const MatmulPlan& plan, EpilogueFn epilogue) {
  static const bool single = (openblas_set_num_threads(1), true);
  (void)single;
  const bool direct = m.epilogue == Epilogue::none || m.epilogue == Epilogue::bias_grad_a;
  const bool column_sums = m.epilogue == Epilogue::dgelu && m.bias_grad;
  const std::int64_t grain = std::clamp<std::int64_t>(chunks_of(plan.rows, 32), 48, 192);
  const std::int64_t count = chunks_of(plan.rows, grain);
  std::vector<float> partials(column_sums ? std::size_t(count * plan.cols) : 0, 0.0f);
  const float* const a = static_cast<const float*>(plan.a.data);
  const float* const b = static_cast<const float*>(plan.b.data);
  parallel_for(plan.rows, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    const std::int64_t n = end - begin;
    float* const c = direct ? static_cast<float*>(m.c.data) + begin * plan.cols
                            : thread_scratch(std::size_t(std::max<std::int64_t>(1, n * plan.cols)));
    if (n > 0 && plan.cols > 0)
      cblas_sgemm(CblasRowMajor, m.transpose_a ? CblasTrans : CblasNoTrans, m.transpose_b ? CblasTrans : CblasNoTrans,
                  blasint(n), blasint(plan.cols), blasint(plan.depth), 1.0f,
                  a + (m.transpose_a ? begin : begin * plan.a.stride),
                  blasint(std::max<std::int64_t>(1, plan.a.stride)), b,
                  blasint(std::max<std::int64_t>(1, plan.b.stride)), direct && m.accumulate ? 1.0f : 0.0f, c,
                  blasint(plan.cols));
    if (!direct)
      epilogue(m, {c, plan.cols, begin, 0, n, plan.cols, column_sums ? partials.data() + chunk * plan.cols : nullptr});
  });
  if (column_sums) finish_bias_grad(m, partials.data(), count, plan.cols);
  if (m.epilogue == Epilogue::bias_grad_a && m.bias_grad) sum_columns_of_a(m, plan);
}

}  // namespace eg::cpu

#endif
