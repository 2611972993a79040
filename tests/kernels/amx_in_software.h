// tests/kernels/amx_in_software.h - the AMX product on processors without AMX.
#pragma once
#include "engine/cpu/matmul.h"

namespace eg::cpu {
#if defined(__x86_64__)
/// The kernel of engine/cpu/matmul_bf16.cpp for AMX, compiled with tile instructions that are plain loops. Needs
/// AVX-512.
const TileKernel& amx_in_software();
#endif
}  // namespace eg::cpu
