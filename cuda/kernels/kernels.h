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

}  // namespace eg::EVERGRAD_BACKEND
