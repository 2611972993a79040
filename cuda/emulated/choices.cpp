// cuda/emulated/choices.cpp - choices between kernels on the emulated device. It has no library, and no clock that says
// anything about a GPU; tests name the kernel that is to be found the fastest.
#include "cuda/choose.h"
#include "cuda/emulated/streams.h"
#include "cuda/kernels/library.h"
#include "cuda/table.h"
#include "engine/build_info.h"

namespace eg::emulated_backend {

Device current_device() { return {DeviceType::emulated, 0}; }
bool is_recording(Stream) { return emulated::Streams::instance().recording(); }

void add_library_ways(const std::string&, const Matmul&, std::vector<Way<Matmul>>*) {}
std::vector<std::string> implementation_names() {
  return {"tile-128", "tile-64", "plain", "one-kernel", "two-kernels"};
}

void describe_kernel_choices() {
  const std::string fastest = emulated::settings().fastest;
  KernelChoices::Clock clock;
  if (!fastest.empty())
    clock = [fastest](const std::string&, const std::string& name, Stream, const std::function<void()>&) {
      return name == fastest ? 1.0 : 2.0;
    };
  kernel_choices(current_device())
      .describe(implementation_names(), cat("emulated, evergrad ", build_info().version), std::move(clock));
}

}  // namespace eg::emulated_backend
