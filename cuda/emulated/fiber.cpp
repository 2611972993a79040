// cuda/emulated/fiber.cpp - see fiber.h.
//
// On x86-64 a switch saves the six registers that a function must preserve, exchanges stack pointers, and returns;
// other processors use ucontext, which is correct and ten times slower.
#include "cuda/emulated/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(EG_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace eg::emulated {

Stack::Stack() {
  void* const all =
      ::mmap(nullptr, kBytes + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  if (::mprotect(all, kGuard, PROT_NONE) != 0) {  // each guard is one more of the mappings that a process may have
    ::munmap(all, kBytes + kGuard);
    throw std::bad_alloc();
  }
  base_ = static_cast<char*>(all) + kGuard;
}
Stack::~Stack() { ::munmap(base_ - kGuard, kBytes + kGuard); }

#if defined(__x86_64__)

extern "C" void evergrad_switch(void** from, void* to);
asm(R"(
.text
.globl evergrad_switch
.type evergrad_switch, @function
evergrad_switch:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
.size evergrad_switch, . - evergrad_switch

.globl evergrad_fiber_start
.type evergrad_fiber_start, @function
evergrad_fiber_start:
  .cfi_startproc
  .cfi_undefined rip
  callq *%rbx
  ud2
  .cfi_endproc
.size evergrad_fiber_start, . - evergrad_fiber_start
)");
extern "C" void evergrad_fiber_start();

void prepare(Context& c, const Stack& stack, std::size_t offset, void (*entry)()) {
  auto* top =
      reinterpret_cast<std::uint64_t*>(reinterpret_cast<std::uintptr_t>(stack.top() - offset) & ~std::uintptr_t(63));
  // After the switch's pops and its ret, the stack pointer is 16-byte aligned where the start stub calls.
  *--top = 0, *--top = 0;
  *--top = reinterpret_cast<std::uint64_t>(&evergrad_fiber_start);
  *--top = 0;                                       // rbp
  *--top = reinterpret_cast<std::uint64_t>(entry);  // rbx
  for (int i = 0; i < 4; ++i) *--top = 0;           // r12 to r15
  c.stack_pointer = top;
  c.fake_stack = nullptr, c.bottom = stack.bottom(), c.bytes = Stack::kBytes;
}

namespace {
void raw_switch(Context& from, Context& to) { evergrad_switch(&from.stack_pointer, to.stack_pointer); }
}  // namespace

#else

void prepare(Context& c, const Stack& stack, std::size_t offset, void (*entry)()) {
  if (!c.stack_pointer) c.stack_pointer = new ucontext_t;
  auto* const u = static_cast<ucontext_t*>(c.stack_pointer);
  ::getcontext(u);
  u->uc_stack.ss_sp = stack.bottom(), u->uc_stack.ss_size = Stack::kBytes - offset, u->uc_link = nullptr;
  ::makecontext(u, entry, 0);
  c.fake_stack = nullptr, c.bottom = stack.bottom(), c.bytes = Stack::kBytes;
}

namespace {
void raw_switch(Context& from, Context& to) {
  if (!from.stack_pointer) from.stack_pointer = new ucontext_t;
  ::swapcontext(static_cast<ucontext_t*>(from.stack_pointer), static_cast<ucontext_t*>(to.stack_pointer));
}
}  // namespace

#endif

void switch_to(Context& from, Context& to, [[maybe_unused]] bool last) {
#if defined(EG_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.bottom, to.bytes);
#endif
  raw_switch(from, to);
  arrived(from, nullptr);
}

void arrived([[maybe_unused]] Context& self, [[maybe_unused]] Context* came_from) {
#if defined(EG_ASAN)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &bottom, &bytes);
  if (came_from && !came_from->bottom) came_from->bottom = static_cast<const char*>(bottom), came_from->bytes = bytes;
#endif
}

}  // namespace eg::emulated
