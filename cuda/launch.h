// cuda/launch.h - checked kernel launches, the same call for both backends.
#pragma once
#include <cstddef>
#include <string_view>
#include <type_traits>

#include "cuda/simt.cuh"
#include "engine/device.h"

namespace eg::EVERGRAD_BACKEND {

/// What a launch needs once the parameter type is forgotten. The parameters are one block of plain bytes.
struct LaunchRequest {
  std::string_view name;
  void (*kernel)() = nullptr;
  /// Calls `kernel` with the parameters (the emulated device starts its threads with it).
  void (*call)(void (*kernel)(), const void* parameters) = nullptr;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  const void* parameters = nullptr;
  std::size_t parameter_bytes = 0;
  bool cooperative = false;
};
void launch_checked(const LaunchRequest& request, Stream stream);
/// Shared memory that the current device gives a block at most, in bytes.
std::size_t most_shared_bytes();

/// How many blocks of a kernel the current device runs at the same time: the most that a cooperative launch may have.
std::int64_t most_resident_blocks(void (*kernel)(), int threads, std::size_t shared_bytes);

namespace detail {
template <class P>
void launch(std::string_view name, void (*kernel)(P), dim3 grid, dim3 block, std::size_t shared_bytes, Stream stream,
            const P& parameters, bool cooperative) {
  static_assert(std::is_trivially_copyable_v<P> && sizeof(P) <= 4096,
                "kernel parameters are one plain struct of at most 4 KiB");
  LaunchRequest request;
  request.name = name;
  request.kernel = reinterpret_cast<void (*)()>(kernel);
  request.call = [](void (*k)(), const void* p) { reinterpret_cast<void (*)(P)>(k)(*static_cast<const P*>(p)); };
  request.grid = grid;
  request.block = block;
  request.shared_bytes = shared_bytes;
  request.parameters = &parameters;
  request.parameter_bytes = sizeof(P);
  request.cooperative = cooperative;
  launch_checked(request, stream);
}
}  // namespace detail

/// Enqueues kernel(params) on the stream. An empty grid is not an error: nothing runs. Throws Error{usage} naming the
/// kernel when a limit of the device is exceeded.
template <class P>
void launch(std::string_view name, void (*kernel)(P), dim3 grid, dim3 block, std::size_t shared_bytes, Stream stream,
            const std::type_identity_t<P>& parameters) {
  detail::launch(name, kernel, grid, block, shared_bytes, stream, parameters, false);
}

/// launch() of a kernel whose blocks meet in grid_barrier(), and so must all be on the device at once: at most
/// most_resident_blocks() of them.
template <class P>
void launch_cooperative(std::string_view name, void (*kernel)(P), dim3 grid, dim3 block, std::size_t shared_bytes,
                        Stream stream, const std::type_identity_t<P>& parameters) {
  detail::launch(name, kernel, grid, block, shared_bytes, stream, parameters, true);
}
template <class P>
std::int64_t most_resident_blocks(void (*kernel)(P), int threads, std::size_t shared_bytes) {
  return most_resident_blocks(reinterpret_cast<void (*)()>(kernel), threads, shared_bytes);
}

}  // namespace eg::EVERGRAD_BACKEND
