// tests/emulated/arrays.h - what tests of the emulated device start with: arrays, the order of threads, told errors.
#pragma once
#include <string>

#include "engine/error.h"
#include "tests/emulated/probes.h"
#include "tests/words/arrays.h"

namespace eg::emulated_backend {

/// The message of the error that f throws, or "no error".
template <class F>
std::string error_of(const F& f) {
  try {
    f();
    device().synchronize({});
  } catch (const Error& e) { return e.what(); }
  return "no error";
}
inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace eg::emulated_backend
