// cuda/emulated/block_faults.cpp - what is told when a kernel does what a GPU would punish, or not even notice.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "cuda/emulated/block.h"
#include "cuda/emulated/place.h"
#include "engine/error.h"

namespace eg::emulated {

std::string Block::where(int thread, const char* file, int line) const {
  const dim3 b = plan_->block;
  const unsigned t = unsigned(thread);
  std::string text = cat("kernel ", plan_->name, ", block (", index_.x, ",", index_.y, ",", index_.z, "), thread (",
                         t % b.x, ",", t / b.x % b.y, ",", t / (b.x * b.y), ")");
  return file ? cat(text, ", ", file, ":", line) : text;
}

std::string Block::census() const {
  std::map<std::string, int> groups;
  for (int t = 0; t < threads_; ++t) {
    const Fiber& f = fibers_[std::size_t(t)];
    switch (f.state) {
      case State::done: ++groups["exited"]; break;
      case State::unstarted: ++groups["not begun"]; break;
      case State::ready: ++groups["can run"]; break;
      case State::at_barrier: ++groups[cat("waiting at __syncthreads ", f.file, ":", f.line)]; break;
      case State::at_grid_barrier: ++groups[cat("waiting at grid_barrier ", f.file, ":", f.line)]; break;
      case State::in_meeting: {
        char mask[16];
        std::snprintf(mask, sizeof mask, "%08x", f.deposit.mask);
        ++groups[cat("waiting at ", f.deposit.what, " ", f.file, ":", f.line, ", mask ", mask)];
        break;
      }
    }
  }
  std::string text;
  for (const auto& [what, count] : groups) text += cat("\n  threads ", what, ": ", count);
  return text;
}

void Block::fault(const std::string& text, const char* file, int line) {
  fault_ = cat(where(current_, file, line), ": ", text);
  abandon();
}

void Block::fault_at(const std::string& text, std::uint32_t code, std::uint32_t other_code, const std::string& other) {
  fault_ = text, other_ = other, code_ = code, other_code_ = other_code;
  abandon();
}

std::string Block::parked_at() const {
  return cat("kernel ", plan_->name, ", block (", index_.x, ",", index_.y, ",", index_.z, "), ", parked_file_, ":",
             parked_line_);
}

void Block::bad_address(const void* address) {
  bad_address_ = address;
  abandon();
}

// Runs on the worker's own stack, which has room for all of this.
std::string Block::told() const {
  if (bad_address_) {
    const Stack& stack = *stacks_[std::size_t(current_)];
    const char* const p = static_cast<const char*>(*bad_address_);
    const bool overflow = p < stack.bottom() && p >= stack.bottom() - Stack::kGuard;
    return cat(where(current_, nullptr, 0), ": ",
               overflow        ? cat("stack overflow: the locals of a thread take more than ", Stack::kBytes >> 10,
                                     " KiB; a GPU thread has 255 registers, so keep large arrays in shared memory")
               : *bad_address_ ? cat("an access to ", *bad_address_, ", where no memory is")
                               : cat("an access through a null pointer; is something missing in the parameters?"));
  }
  if (!code_) return fault_;
  std::string text = cat(where(current_, nullptr, 0), ", ", place_of(code_), ": ", fault_);
  if (other_code_) text += cat("\n  the access of ", other_, ": ", place_of(other_code_));
  return text;
}

// Out of line and without a local: the fiber is left for good, so nothing of it is destroyed.
void Block::abandon() {
  switch_to(fibers_[std::size_t(current_)].context, main_, true);
  __builtin_trap();
}

#if defined(EG_ASAN)
void catch_bad_addresses() {}
#else
namespace {

struct sigaction previous;

// Leaves the fiber from inside the handler. That is allowed: SA_NODEFER keeps the signal deliverable, and the alternate
// stack is free again as soon as the stack pointer has left it.
void on_bad_address(int signal, siginfo_t* info, void*) {
  if (Block* const b = running_block()) b->bad_address(info->si_addr);
  ::sigaction(signal, &previous, nullptr);  // not ours: whoever was there before meets it again on return
}

/// A stack for the handler, because the one that overflowed has no room.
struct AlternateStack {
  static constexpr std::size_t kBytes = 64 << 10;
  void* memory = nullptr;
  AlternateStack() {
    memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t s{};
    s.ss_sp = memory, s.ss_size = kBytes;
    if (memory != MAP_FAILED) ::sigaltstack(&s, nullptr);
  }
  ~AlternateStack() {
    stack_t now{};
    if (memory == MAP_FAILED) return;
    ::sigaltstack(nullptr, &now);
    if (now.ss_sp == memory) {
      now.ss_flags = SS_DISABLE;
      ::sigaltstack(&now, nullptr);
    }
    ::munmap(memory, kBytes);
  }
};

}  // namespace

void catch_bad_addresses() {
  stack_t now{};
  if (::sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_DISABLE)) {
    static thread_local AlternateStack own;
    stack_t again{};
    again.ss_sp = own.memory, again.ss_size = AlternateStack::kBytes;
    if (own.memory != MAP_FAILED) ::sigaltstack(&again, nullptr);
  }
  struct sigaction ours {};
  ours.sa_sigaction = on_bad_address;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&ours.sa_mask);
  struct sigaction before {};
  ::sigaction(SIGSEGV, &ours, &before);
  if (before.sa_sigaction != on_bad_address) previous = before;
}
#endif

}  // namespace eg::emulated
