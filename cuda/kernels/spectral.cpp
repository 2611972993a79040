// cuda/kernels/spectral.cpp - host entry of spectral.cu.
#include "cuda/kernels/spectral.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void spectral_penalty(const SpectralPenalty& a, Stream s) {
  SpectralParams p;
  p.grad = operand(a.grad), p.weight = a.weight.as<float>(), p.u = a.u.as<float>();
  p.next = a.next.as<float>(), p.v = a.v.as<float>(), p.sigma = a.sigma.as<float>();
  p.slope = static_cast<float*>(scratch(s, sizeof(float)).data);
  p.rows = a.u.size(), p.columns = a.v.size(), p.strength = a.strength, p.target = a.target, p.k = a.k;
  const dim3 threads{unsigned(kSpectralThreads)};
  launch("spectral_penalty columns", spectral_columns_kernel(),
         dim3(unsigned(ceil_div<std::int64_t>(p.columns, kSpectralColumns))), dim3(kSpectralColumns, kSpectralLanes), 0,
         s, p);
  launch("spectral_penalty unit", spectral_unit_kernel(), dim3(1), threads, 0, s, p);
  launch("spectral_penalty rows", spectral_rows_kernel(), dim3(unsigned(p.rows)), threads, 0, s, p);
  launch("spectral_penalty finish", spectral_finish_kernel(), dim3(1), threads, 0, s, p);
  launch("spectral_penalty", spectral_gradient_kernel(), dim3(stream_blocks(p.rows * p.columns)), threads, 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
