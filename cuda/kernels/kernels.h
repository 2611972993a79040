// cuda/kernels/kernels.h - the host entries of this folder's kernels, one per entry of the kernel table.
//
// The folder is compiled once per backend: by nvcc as `cuda_backend`, by the host compiler as `emulated_backend`. The
// namespace keeps the two apart, so that one program may hold both devices.
#pragma once
#include "engine/kernels.h"

#ifndef EVERGRAD_BACKEND
#error "EVERGRAD_BACKEND must be cuda_backend or emulated_backend; the build system of cuda/ sets it."
#endif

namespace eg::EVERGRAD_BACKEND {

#define EVERGRAD_ENTRY(name, Args) void name(const Args& args, Stream stream);
EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY

/// Whether the current device multiplies by warpgroups (cuda/wgmma.cuh: compute capability 9.0) and this build has code for
/// it. Each backend answers (device/choices.cpp, emulated/choices.cpp).
bool warpgroup_products();
/// The product by tiles of 64 x 64, which the rule takes where larger ones would leave multiprocessors idle; for the ladder.
void matmul_by_small_tiles(const Matmul& m, Stream s);
/// matmul() by warpgroups, tiles of 128 x 256, where they are (else Error{usage}); bf16 operands, rows of 16-byte pieces.
void matmul_by_warpgroups(const Matmul& args, Stream stream);

}  // namespace eg::EVERGRAD_BACKEND
