// cuda/scratch.cpp - see scratch.h: who gets which block, the same on every backend.
#include "cuda/scratch.h"

#include <algorithm>
#include <map>
#include <mutex>

namespace eg::EVERGRAD_BACKEND {

// A block that became too small is never freed: launches that are under way and recordings hold its address, and nobody
// tells when the last recording is gone. Doubling bounds the price: all old blocks together are smaller than the newest.
Scratch scratch(Stream stream, std::size_t bytes, std::size_t tickets) {
  static std::mutex mutex;
  static std::map<void*, ScratchBlocks> by_stream;
  const std::lock_guard lock(mutex);
  ScratchBlocks& held = by_stream[scratch_key(stream)];
  DeviceRuntime& device = scratch_device();
  if (held.bytes < bytes) {
    const std::size_t room = std::max(bytes, 2 * held.bytes);
    held.data = device.allocate(room);
    held.bytes = room;
  }
  if (held.count < tickets) {
    const std::size_t count = std::max(tickets, 2 * held.count);
    held.tickets = static_cast<unsigned*>(device.allocate(count * sizeof(unsigned)));
    held.count = count;
    device.set_zero(held.tickets, count * sizeof(unsigned), stream);
  }
  before_scratch_use(held, bytes, stream);
  return {held.data, held.tickets};
}

}  // namespace eg::EVERGRAD_BACKEND
