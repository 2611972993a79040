// engine/poison.h - telling AddressSanitizer, where a program has it, that memory of a pool is not to be touched.
#pragma once
#include <cstddef>

// Weak, so that it is the program that decides: an engine without instrumentation serves programs with and without the
// sanitizer, and kernels that were compiled for it are watched in both.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* p, std::size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* p, std::size_t bytes);
}

namespace eg {

inline bool sanitizer_watches() { return &__asan_poison_memory_region && &__asan_unpoison_memory_region; }
/// Only where sanitizer_watches().
inline void set_poison(const void* p, std::size_t bytes, bool poisoned) {
  poisoned ? __asan_poison_memory_region(p, bytes) : __asan_unpoison_memory_region(p, bytes);
}

}  // namespace eg
