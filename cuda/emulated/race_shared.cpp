// cuda/emulated/race_shared.cpp - races in shared memory; see race.h.
#include "cuda/emulated/race.h"

namespace eg::emulated::race {

// Two readers are kept. The second is of another warp where there is one, because a later write by the first reader's
// own warp may be ordered with it and yet clash with the other.
void SharedShadow::keep_reader(Cell& cell, const Access& reader) {
  Access& a = cell.reader[0];
  Access& b = cell.reader[1];
  if (a.epoch != reader.epoch || a.thread == reader.thread) {
    a = reader;
  } else if (b.epoch != reader.epoch || b.thread == reader.thread ||
             (b.thread / 32 == a.thread / 32 && reader.thread / 32 != a.thread / 32)) {
    b = reader;
  }
}

Finding SharedShadow::access(const Now& now, std::int64_t offset, std::size_t bytes, bool is_write) {
  const std::size_t first = std::size_t(offset) / 2, end = (std::size_t(offset) + bytes + 1) / 2;
  if (cells_.size() < end) cells_.resize(end);
  for (std::size_t i = first; i < end; ++i) {
    Cell& cell = cells_[i];
    const unsigned low = std::int64_t(2 * i) < offset ? 2u : 3u;
    const unsigned high = std::int64_t(2 * i + 2) > offset + std::int64_t(bytes) ? 1u : 3u, touched = low & high;
    const auto found = [&](const char* what, const Access& a) {
      return Finding{what, a.thread, -1, a.code, std::int64_t(2 * i)};
    };
    if (clash(cell.writer, touched, now))
      return found(is_write ? "two threads write" : "a read of what another thread writes", cell.writer);
    if (cell.written_since != first_epoch_) cell.written_since = first_epoch_, cell.written = 0;
    const Access me{now.epoch, now.warp_epoch, now.code, std::uint16_t(now.thread), std::uint8_t(touched)};
    if (!is_write) {
      if ((cell.written & touched) != touched)
        return {"a read of shared memory that no thread of the block has written", -1, -1, 0, std::int64_t(2 * i)};
      keep_reader(cell, me);
      continue;
    }
    for (const Access& r : cell.reader)
      if (clash(r, touched, now)) return found("a write over what another thread reads", r);
    // One thread that writes both bytes one after the other is the writer of both.
    const bool same = cell.writer.epoch == me.epoch && cell.writer.thread == me.thread;
    const auto both = std::uint8_t(me.bytes | (same ? cell.writer.bytes : 0));
    cell.writer = me;
    cell.writer.bytes = both;
    cell.written = std::uint8_t(cell.written | touched);
  }
  return {};
}

}  // namespace eg::emulated::race
