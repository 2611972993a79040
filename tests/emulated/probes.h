// tests/emulated/probes.h - kernels that only the emulated device's own suite runs: about its fibers and its streams.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

/// Every thread keeps eight numbers across `rounds` barriers and adds its neighbour's; any block of up to 1024 threads.
struct KeepProbe {
  double* out;
  int rounds;
};
/// One thread counts to n and lets nobody else run.
struct SpinProbe {
  unsigned* out;
  std::int64_t n;
};
/// Calls itself `depth` times, with a kilobyte of locals each; out[0] = a number that depends on all of them.
struct DeepProbe {
  unsigned* out;
  int depth;
};
/// out[i] = in[i] + add.
struct AddProbe {
  const float* in;
  float* out;
  float add;
};

/// out[thread] = how far a frame of this thread, at the begin of its stack and after a barrier, is from 16 bytes.
struct AlignProbe {
  unsigned* out;
};

void (*keep_probe())(KeepProbe);
void (*spin_probe())(SpinProbe);
void (*deep_probe())(DeepProbe);
void (*add_probe())(AddProbe);
void (*align_probe())(AlignProbe);

}  // namespace eg::EVERGRAD_BACKEND
