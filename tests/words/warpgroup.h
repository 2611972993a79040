// tests/words/warpgroup.h - a product of a warpgroup, right or with one mistake.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

/// What the kernel leaves out or does too much; only the emulated device is asked for more than `none`.
enum class Mistake : int {
  none,
  copies_not_fenced,
  writes_not_fenced,
  no_barrier,
  sums_not_fenced,
  sums_read_early,
  operand_overwritten,
  overwritten_after_barrier,
  left_in_flight,
  three_warps,
  foreign_descriptor,
  operand_outside
};

/// d = a b on 64 x `cols` outputs, 64 deep, by 128 threads: d[thread][cols / 2] as the threads hold it.
struct WarpgroupProbe {
  const bf16 *a, *b;  // K-major: [64, 64] and [cols, 64]; MN-major: [64 deep, 64] and [64 deep, cols]
  float* d;
  Mistake mistake;
};
using WarpgroupKernel = void (*)(WarpgroupProbe);
/// cols: 128 or 256.
WarpgroupKernel warpgroup_probe(int cols, bool a_transposed, bool b_transposed);
std::size_t warpgroup_probe_shared_bytes(int cols);

}  // namespace eg::EVERGRAD_BACKEND
