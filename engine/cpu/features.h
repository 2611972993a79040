// engine/cpu/features.h - what this processor can do beyond the vector width of isa.h: the bf16 instructions.
//
// All answers come from CPUID feature bits, the operating system's consent included; processor names are no guide,
// virtual machines lie about them. The one thing no bit tells is how fast vdpbf16ps is, so the maker decides there.
#pragma once
#include <string>

namespace eg::cpu {

struct Features {
  bool avx2_fma = false;       // AVX2 and FMA
  bool avx512 = false;         // F, BW, DQ and VL
  bool avx512_bf16 = false;    // vdpbf16ps
  bool bf16_dot_fast = false;  // vdpbf16ps does more work per cycle than a fused multiply-add in fp32
  bool amx_bf16 = false;       // tile registers, tdpbf16ps, and the kernel's permission to use them
};

/// What the machine has, asked once. The first call requests the tile registers from the kernel for this process.
const Features& features();

/// One line for people: "AVX-512, AVX512-BF16; bf16 products by vdpbf16ps". Names EVERGRAD_CPU where it lowers the
/// choice. Throws Error{usage} when EVERGRAD_CPU is unknown (isa.h).
std::string describe_features();

}  // namespace eg::cpu
