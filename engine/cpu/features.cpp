// engine/cpu/features.cpp - CPUID, and the request for tile registers.
#include "engine/cpu/features.h"

#include "engine/cpu/isa.h"
#include "engine/cpu/matmul.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace eg::cpu {
namespace {

#if defined(__x86_64__)

bool has(unsigned word, int bit) { return (word >> bit) & 1u; }

// Since Linux 5.16 a process has to ask before the first tile instruction; the answer holds for all its threads.
bool request_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// AMD since Zen 4 issues vdpbf16ps at the rate of a fused multiply-add, twice the products (measured: 234 against
// 117 GFLOP/s on one core); Intel's Sapphire Rapids at a quarter of that rate (107 against 215).
bool made_by_amd() {
  unsigned top = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &top, &b, &c, &d) && b == 0x68747541u && d == 0x69746e65u && c == 0x444d4163u;
}

Features probe() {
  Features f;
  f.avx2_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = f.avx2_fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!f.avx512 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  const unsigned leaves = a;
  const bool tiles = has(d, 22) && has(d, 24);  // AMX-BF16 and AMX-TILE
  if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx512_bf16 = has(a, 5);
  f.bf16_dot_fast = f.avx512_bf16 && made_by_amd();
  f.amx_bf16 = tiles && request_tiles();
  return f;
}

#else

Features probe() { return {}; }

#endif

}  // namespace

const Features& features() {
  static const Features probed = probe();
  return probed;
}

std::string describe_features() {
  const Features& f = features();
  std::string text = isa() == Isa::avx512 ? "AVX-512" : isa() == Isa::avx2 ? "AVX2" : "no wide vectors";
  if (f.avx512_bf16) text += ", AVX512-BF16";
  if (f.amx_bf16) text += ", AMX-BF16";
  text += cat("; products by ", to_string(matmul_path(DType::f32)), " in fp32, ", to_string(matmul_path(DType::bf16)),
              " in bf16");
  if (const char* const lowered = std::getenv("EVERGRAD_CPU"); lowered && *lowered)
    text += cat(" (EVERGRAD_CPU=", lowered, ")");
  return text;
}

}  // namespace eg::cpu
