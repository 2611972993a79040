// apps/bench/ceilings.h - what this machine can do at best, measured in the same run as everything that is compared to
// it.
#pragma once
#include <string>

#include "engine/device.h"

namespace eg {

struct Ceilings {
  double fp32_gflops = 0.0;     // fused multiply-adds on registers, the widest vectors this processor has
  double bf16_gflops = 0.0;     // vdpbf16ps or mma.sync on registers; 0 where there is none (AMX and wgmma not counted)
  double copy_gb_per_s = 0.0;   // out[i] = a[i] over arrays far larger than the caches, read + written bytes
  double triad_gb_per_s = 0.0;  // out[i] = a[i] + s b[i], read + written bytes
  std::string unit;             // "avx512", "avx2+fma", "generic"
};

/// Takes about `seconds` per figure, on num_threads() threads. Of the emulated device only the copy is known: its
/// arithmetic ceilings are 0, because its times say nothing about a GPU.
Ceilings measure_ceilings(Device device, double seconds = 0.15);

}  // namespace eg
