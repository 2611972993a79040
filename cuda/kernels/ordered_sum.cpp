// cuda/kernels/ordered_sum.cpp - host entry of ordered_sum.cu.
#include "cuda/kernels/ordered_sum.h"

#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "engine/error.h"

namespace eg::EVERGRAD_BACKEND {

void ordered_sum(const void* parts, void* out, std::int64_t n, std::int64_t stride, int ranks, DType dtype, Stream s) {
  check(is_float(dtype), Kind::dtype, [&] { return cat("ranks can sum f32, f64 and bf16, not ", dtype); });
  OrderedSumParams p;
  p.parts = {const_cast<void*>(parts), dtype}, p.out = {out, dtype};
  p.n = n, p.stride = stride, p.ranks = ranks;
  const auto aligned = [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 == 0; };
  p.wide = dtype != DType::f64 && stride % kPack == 0 && aligned(parts) && aligned(out);
  launch("ordered_sum", ordered_sum_kernel(), dim3(stream_blocks(n)), dim3(stream_threads(n)), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
