// cuda/emulated/poison.h - telling AddressSanitizer which bytes of the emulator's own memory a kernel may not touch.
#pragma once
#include <cstddef>

#if defined(EG_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace eg::emulated {
inline void poison([[maybe_unused]] const volatile void* p, [[maybe_unused]] std::size_t bytes) {
#if defined(EG_ASAN)
  __asan_poison_memory_region(p, bytes);
#endif
}
inline void unpoison([[maybe_unused]] const volatile void* p, [[maybe_unused]] std::size_t bytes) {
#if defined(EG_ASAN)
  __asan_unpoison_memory_region(p, bytes);
#endif
}
/// True when AddressSanitizer watches and some byte there is not to be touched.
inline bool poisoned([[maybe_unused]] const void* p, [[maybe_unused]] std::size_t bytes) {
#if defined(EG_ASAN)
  return __asan_region_is_poisoned(const_cast<void*>(p), bytes) != nullptr;
#else
  return false;
#endif
}
}  // namespace eg::emulated
