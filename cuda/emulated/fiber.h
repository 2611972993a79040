// cuda/emulated/fiber.h - switching between the threads of a block: one stack each, no system call.
#pragma once
#include <cstddef>

namespace eg::emulated {

/// A stack with a guard page below it.
class Stack {
 public:
  static constexpr std::size_t kBytes = 64 << 10, kGuard = 4096;
  Stack();
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  char* bottom() const { return base_; }  // lowest usable byte
  char* top() const { return base_ + kBytes; }
  bool holds(const void* p) const { return p >= bottom() && p < top(); }

 private:
  char* base_ = nullptr;
};

/// A place to continue: the stack pointer of a suspended flow of control.
struct Context {
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;    // AddressSanitizer's
  const char* bottom = nullptr;  // of the stack it runs on, for AddressSanitizer; null: the OS thread's own
  std::size_t bytes = 0;
};

/// Makes `c` begin in entry() on the stack, `offset` bytes below its top. entry must never return.
void prepare(Context& c, const Stack& stack, std::size_t offset, void (*entry)());
/// Saves the present flow in `from` and goes on with `to`. `last`: from will never be continued.
void switch_to(Context& from, Context& to, bool last = false);
/// The first thing that a flow does when it is continued, or begun.
void arrived(Context& self, Context* came_from);

}  // namespace eg::emulated
