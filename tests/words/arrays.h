// tests/words/arrays.h - device arrays for tests of the emulated device and of cuda:0, and the order of threads.
#pragma once
#include <doctest/doctest.h>

#include <vector>

#include "cuda/launch.h"
#if !EVERGRAD_IS_CUDA
#include "cuda/emulated/runtime.h"
#include "cuda/emulated/streams.h"
#endif

namespace eg::EVERGRAD_BACKEND {

#if EVERGRAD_IS_CUDA
DeviceRuntime& device();  // device_cuda.cpp: ends the program as skipped where there is no GPU
// A GPU has an order of its own.
struct Restore {
  Restore() {}
};
inline void use_schedule(int) {}
#else
inline DeviceRuntime& device() { return emulated::emulated_runtime(); }

/// Puts the settings back at the end of a test.
struct Restore {
  emulated::Settings before = emulated::settings();
  ~Restore() { emulated::settings() = before; }
};
/// Round-robin, then `random` orders drawn from seeds 1, 2, ...; with up to three workers in turn.
inline void use_schedule(int i) {
  emulated::settings().schedule = {i > 0, std::uint64_t(i)};
  emulated::settings().workers = 1 + i % 3;
}
#endif

/// An array on the device, with these values or zeros.
template <class T>
class Array {
 public:
  explicit Array(std::size_t n) : n_(n), data_(static_cast<T*>(device().allocate(n * sizeof(T)))) {
    device().set_zero(data_, n * sizeof(T), {});
    device().synchronize({});
  }
  Array(const std::vector<T>& values) : Array(values.size()) {
    device().copy_from_host(data_, values.data(), n_ * sizeof(T), {});
    device().synchronize({});
  }
  ~Array() { device().release(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() const { return data_; }
  std::size_t bytes() const { return n_ * sizeof(T); }
  std::vector<T> values(Stream s = {}) const {
    std::vector<T> host(n_);
    device().copy_to_host(host.data(), data_, bytes(), s);
    device().synchronize(s);
    return host;
  }

 private:
  std::size_t n_;
  T* data_;
};

}  // namespace eg::EVERGRAD_BACKEND
