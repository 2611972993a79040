// cuda/emulated/race_global.cpp - races in device memory; see race.h.
#include <sys/mman.h>

#include <algorithm>

#include "cuda/emulated/race.h"
#include "engine/error.h"

namespace eg::emulated::race {
namespace {
// Numbers of accesses have 30 bits. They start again long before they run out, which forgets the last launches.
constexpr std::uint32_t kStartAgain = 1u << 29;
}  // namespace

void GlobalShadow::reserve(const char* begin, std::size_t bytes) {
  begin_ = begin, cell_count_ = bytes / 2;
  void* const p = ::mmap(nullptr, cell_count_ * sizeof(Cell), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(p != MAP_FAILED, Kind::memory, [&] {
    return cat("the race detector cannot reserve ", cell_count_ * sizeof(Cell) >> 30,
               " GiB of address space for its notes; allow it (ulimit -v unlimited), or test with another build");
  });
  cells_ = static_cast<Cell*>(p);
}

void GlobalShadow::begin_launch(const Moment& moment, const char* name) {
  const std::string kept = name;  // it may be that of the last launch, which goes
  first_number_ += std::uint32_t(who_.size());
  who_.clear();
  fences_.clear();
  if (first_number_ >= kStartAgain) {
    ::madvise(cells_, cell_count_ * sizeof(Cell), MADV_DONTNEED);
    first_number_ = 1, settled_ = 0;
    launches_.clear();
  }
  if (!launches_.empty() && launches_.back().first_number == first_number_) launches_.pop_back();  // it touched nothing
  moment_ = moment;
  launches_.push_back({first_number_, moment.chain, moment.number, kept});
  ordered_from_ = ordered_to_ = 0;
}

void GlobalShadow::settled() {
  settled_ = first_number_ + std::uint32_t(who_.size());
  launches_.clear();
}

const GlobalShadow::Launch* GlobalShadow::unordered_launch(std::uint32_t number) const {
  if (number < settled_ || (number >= ordered_from_ && number < ordered_to_)) return nullptr;
  const auto next = std::ranges::upper_bound(launches_, number, {}, &Launch::first_number);
  if (next == launches_.begin()) return nullptr;
  const Launch& launch = *std::prev(next);
  if (!moment_.after(launch.chain, launch.number)) return &launch;
  ordered_from_ = launch.first_number, ordered_to_ = next == launches_.end() ? first_number_ : next->first_number;
  return nullptr;
}

void GlobalShadow::begin_block(int threads) {
  numbers_.assign(std::size_t(threads), 0);
  atomic_epoch_.assign(std::size_t(threads), -1);
  acquired_.assign(std::size_t(threads), false);
  first_atomic_ = first_acquire_ = -1;
  mine_ = nullptr;
}

void GlobalShadow::barrier() { std::fill(numbers_.begin(), numbers_.end(), 0); }

void GlobalShadow::fence(int thread) {
  mine_ = &fences_[clock_.block];  // references into the map stay valid
  mine_->by_thread[thread] = ++mine_->count;
  mine_->last_epoch = clock_.epoch;
  barrier();
  const std::int64_t epoch = clock_.epoch;
  if (atomic_epoch_[std::size_t(thread)] >= 0 || (first_atomic_ >= 0 && first_atomic_ < epoch)) {
    acquired_[std::size_t(thread)] = true;
    if (first_acquire_ < 0) first_acquire_ = epoch;
  }
}

void GlobalShadow::atomic(int thread) {
  atomic_epoch_[std::size_t(thread)] = clock_.epoch;
  if (first_atomic_ < 0) first_atomic_ = clock_.epoch;
}

std::uint32_t GlobalShadow::number_of(const Now& now) {
  std::uint32_t& number = numbers_[std::size_t(now.thread)];
  if (number && who_[number - first_number_].warp_epoch == now.warp_epoch) return number;
  number = first_number_ + std::uint32_t(who_.size());
  who_.push_back({clock_.block, now.epoch, now.warp_epoch, mine_ ? mine_->count : 0, now.thread});
  return number;
}

bool GlobalShadow::handed_over(const Who& from, const Now& to) const {
  const auto found = fences_.find(from.block);
  if (found == fences_.end()) return false;
  const Fences& f = found->second;
  bool released = f.last_epoch > from.epoch;
  if (!released) {
    const auto own = f.by_thread.find(from.thread);
    released = own != f.by_thread.end() && own->second > from.fences;
  }
  return released &&
         (acquired_[std::size_t(to.thread)] || (first_acquire_ >= 0 && first_acquire_ < std::int64_t(to.epoch)));
}

const char* GlobalShadow::clash(std::uint32_t stored, unsigned bytes, const Now& now, bool stored_is_write,
                                bool is_write, Finding* out) const {
  if (!(stored & bytes)) return nullptr;
  if (stored >> 2 < first_number_) {
    const Launch* const launch = unordered_launch(stored >> 2);
    if (!launch) return nullptr;
    out->other = launch->name.c_str();
    return !stored_is_write ? "a write over what other work reads"
           : is_write       ? "two pieces of work write one place"
                            : "a read of what other work writes";
  }
  const Who& a = who_[(stored >> 2) - first_number_];
  const bool other_block = a.block != clock_.block;
  if (other_block ? handed_over(a, now) : clock_.ordered(a.thread, a.epoch, a.warp_epoch, now)) return nullptr;
  out->thread = a.thread;
  out->block = other_block ? std::int64_t(a.block) : -1;
  if (other_block)
    return !stored_is_write ? "a block writes what another block reads"
           : is_write       ? "two blocks write one place"
                            : "a block reads what another block writes";
  return !stored_is_write ? "a write over what another thread reads"
         : is_write       ? "two threads write one place"
                          : "a read of what another thread writes";
}

// Work that reads on another stream must not be forgotten for a later reader: a write that waits for that one alone would
// then go unseen.
void GlobalShadow::keep_reader(Cell& cell, std::uint32_t number, unsigned touched, std::uint32_t code) {
  const std::uint32_t before = cell.reader >> 2;
  if (before && before < first_number_ && unordered_launch(before))
    cell.other_reader = cell.reader, cell.other_code = cell.reader_code;
  cell.reader = number | touched | (before == number >> 2 ? cell.reader & 3u : 0u);
  cell.reader_code = code;
}

Finding GlobalShadow::access(const Now& now, const void* p, std::size_t bytes, bool is_write) {
  const auto offset = static_cast<const char*>(p) - begin_, last = offset + std::ptrdiff_t(bytes);
  const std::uint32_t number = number_of(now) << 2;
  Finding found;
  for (std::ptrdiff_t i = offset / 2; 2 * i < last; ++i) {
    Cell& cell = cells_[i];
    const unsigned touched = (2 * i < offset ? 2u : 3u) & (2 * i + 2 > last ? 1u : 3u);
    if (cell.writer >> 2 != number >> 2) {
      found.what = clash(cell.writer, touched, now, true, is_write, &found);
      found.code = cell.writer_code;
    }
    if (is_write && !found.what && cell.reader >> 2 != number >> 2) {
      found.what = clash(cell.reader, touched, now, false, true, &found);
      found.code = cell.reader_code;
    }
    if (is_write && !found.what && cell.other_reader) {
      found.what = clash(cell.other_reader, touched, now, false, true, &found);
      found.code = cell.other_code;
    }
    if (found.what) {
      found.byte = 2 * i;
      return found;
    }
    if (!is_write) {
      keep_reader(cell, number, touched, now.code);
      continue;
    }
    cell.writer = number | touched | (cell.writer >> 2 == number >> 2 ? cell.writer & 3u : 0u);
    cell.writer_code = now.code;
  }
  return found;
}

}  // namespace eg::emulated::race
