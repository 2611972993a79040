// cuda/scratch.h - working memory of kernels that reduce in two stages, one block of it per stream.
#pragma once
#include <cstddef>

#include "engine/device.h"

#ifndef EVERGRAD_BACKEND
#error "EVERGRAD_BACKEND must be cuda_backend or emulated_backend; the build system of cuda/ sets it."
#endif

namespace eg::EVERGRAD_BACKEND {

struct Scratch {
  void* data = nullptr;
  unsigned* tickets = nullptr;  // zero on entry; whoever counts up to the end must set them back to zero
};

/// `bytes` of garbage, 256-byte aligned, and `tickets` zeroed counters, both valid until the next call on this stream.
/// Calls on one stream run one after another, so every launch wrapper may ask for its own. Grows only, and keeps the
/// smaller blocks for recordings that name them; a recorded step must have run once before, because nothing can be
/// allocated while a step is recorded.
Scratch scratch(Stream stream, std::size_t bytes, std::size_t tickets = 0);

/// What a stream holds now.
struct ScratchBlocks {
  void* data = nullptr;
  std::size_t bytes = 0;
  unsigned* tickets = nullptr;
  std::size_t count = 0;
};
/// What scratch() asks of its backend (launch.cpp): the stream that a handle stands for, whose memory it is, and what is
/// to happen right before the kernel that asked for `bytes` runs.
void* scratch_key(Stream stream);
DeviceRuntime& scratch_device();
void before_scratch_use(const ScratchBlocks& held, std::size_t bytes, Stream stream);

}  // namespace eg::EVERGRAD_BACKEND
