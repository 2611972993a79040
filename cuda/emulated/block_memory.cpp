// cuda/emulated/block_memory.cpp - the shared memory of a block, and its asynchronous copies.
//
// One arena holds a redzone, the dynamic part, a redzone, and the static pieces with a redzone behind each. Everything
// is filled with 0xFF at the begin of every block: what a block finds there is garbage, and 0xFF is NaN in fp32 and
// bf16.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "cuda/emulated/block.h"
#include "cuda/emulated/poison.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {
constexpr std::size_t kSharedBytes = 512 << 10, kRedzone = 256;
constexpr std::size_t kDynamic = 1024;  // where the dynamic part begins, behind a redzone: aligned as a GPU aligns it
constexpr std::size_t kLimit = 227 << 10;  // what a block may have on Hopper; the launch wrapper refuses more
}  // namespace

Block::Block() {
  void* const memory =
      ::mmap(nullptr, kSharedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  shared_ = static_cast<char*>(memory);
  landings_.resize(kSharedBytes / 16);
  watchdog::add(this);
}
Block::~Block() {
  watchdog::remove(this);
  unpoison(shared_, kSharedBytes);
  ::munmap(shared_, kSharedBytes);
}

void Block::fill_shared(std::size_t dynamic_bytes) {
  unpoison(shared_, kSharedBytes);
  const std::size_t begin = kDynamic - kRedzone, used_before = std::max(used_, kDynamic + dynamic_bytes + kRedzone);
  std::memset(shared_ + begin, 0xFF, std::min(kSharedBytes, used_before + kRedzone) - begin);
  dynamic_bytes_ = dynamic_bytes;
  used_ = (kDynamic + dynamic_bytes + kRedzone + 127) / 128 * 128;
  pieces_.clear();
  poison_shared(true);
}

void Block::poison_shared(bool on) {
  if (!on) return unpoison(shared_, kSharedBytes);
  poison(shared_, kSharedBytes);
  unpoison(shared_ + kDynamic, dynamic_bytes_);
}

void* Block::dynamic_shared(std::size_t bytes, std::size_t alignment, const char* file, int line) {
  if (bytes > dynamic_bytes_)
    fault(cat("dynamic_shared of ", bytes, " bytes, but the launch gives ", dynamic_bytes_,
              "; pass sizeof the struct to launch()"),
          file, line);
  if (alignment > kDynamic)
    fault(cat("dynamic shared memory is aligned to ", kDynamic, " bytes, not to ", alignment), file, line);
  return shared_ + kDynamic;
}

void* Block::static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* file, int line) {
  for (const Piece& p : pieces_)
    if (p.key == key) return shared_ + p.offset;
  std::size_t total = dynamic_bytes_ + bytes;
  for (const Piece& p : pieces_) total += p.bytes;
  const std::size_t align = std::max<std::size_t>(alignment, 16), offset = (used_ + align - 1) / align * align;
  if (total > kLimit || offset + bytes + kRedzone > kSharedBytes)
    fault(
        cat("the block's shared memory grows to ", total, " bytes, over the limit of ", kLimit, "; use smaller tiles"),
        file, line);
  pieces_.push_back({key, offset, bytes});
  used_ = offset + bytes + kRedzone;
  unpoison(shared_ + offset, bytes);
  std::memset(shared_ + offset, 0xFF, bytes);
  return shared_ + offset;
}

bool Block::in_shared(const void* p, std::size_t bytes) const {
  const auto at = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(shared_);
  if (at >= kDynamic && at + bytes <= kDynamic + dynamic_bytes_) return true;
  for (const Piece& piece : pieces_)
    if (at >= piece.offset && at + bytes <= piece.offset + piece.bytes) return true;
  return false;
}

std::int64_t Block::shared_offset(const void* p) const {
  const auto at = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(shared_);
  return at < kSharedBytes ? std::int64_t(at) : -1;
}

std::string Block::describe_shared(const void* p) const {
  const auto at = std::size_t(reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(shared_));
  std::size_t start = kDynamic, bytes = dynamic_bytes_;
  const char* kind = "dynamic";
  for (const Piece& piece : pieces_)
    if (at + kRedzone / 2 >= piece.offset) start = piece.offset, bytes = piece.bytes, kind = "static";
  return cat("byte ", std::int64_t(at) - std::int64_t(start), " of ", bytes, " bytes of ", kind, " shared memory");
}

// The bytes of a copy land in wait(), the latest legal moment; until then the target holds NaN.
void Block::copy_async(void* to, const void* from, bool valid, std::uint32_t code) {
  Fiber& f = fibers_[std::size_t(current_)];
  std::memset(to, 0xFF, 16);
  if (watcher) watcher->access(current_, to, 16, true, code);
  if (watcher && valid) watcher->access(current_, from, 16, false, code);
  f.copies.push_back({to, valid ? from : nullptr, f.groups, code});
}
void Block::commit() { ++fibers_[std::size_t(current_)].groups; }
void Block::wait(int still_in_flight) {
  Fiber& f = fibers_[std::size_t(current_)];
  std::size_t kept = 0;
  for (const Copy& c : f.copies) {
    // A copy that was never committed belongs to the open group, number f.groups: wait_group does not wait for it.
    if (c.group >= f.groups - still_in_flight) {
      f.copies[kept++] = c;
      continue;
    }
    if (watcher) watcher->access(current_, c.to, 16, true, c.code);  // it may have landed at any time until now
    if (c.from)
      std::memcpy(c.to, c.from, 16);
    else
      std::memset(c.to, 0, 16);
    note_write(current_, std::size_t(shared_offset(c.to)), 16);
  }
  f.copies.resize(kept);
}

void Block::note_write(int thread, std::size_t offset, std::size_t bytes) {
  for (std::size_t i = offset / 16; i <= (offset + bytes - 1) / 16; ++i)
    landings_[i] = {run_, fibers_[std::size_t(thread)].product_fences, thread};
}

const char* Block::product_operand(std::size_t offset, const char* what, bool at_issue, const char* file, int line) {
  const char* const p = shared_ + offset;
  if (!in_shared(p, 16))
    fault(cat("warpgroup_mma: its operand ", what, " reaches ", describe_shared(p), "; see panel_descriptor()"), file,
          line);
  const Landing& l = landings_[offset / 16];
  if (at_issue && l.run == run_ && l.fences == fibers_[std::size_t(l.thread)].product_fences)
    fault(cat("warpgroup_mma: thread ", l.thread, " wrote ", describe_shared(p), ", of operand ", what,
              ", and has not called fence_for_products() since: on a GPU the product may not see it"),
          file, line);
  return p;
}

}  // namespace eg::emulated
