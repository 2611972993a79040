// cuda/emulated/choices.cpp - choices between kernels on the emulated device. It has no clock that says anything about a GPU;
// tests name the kernel that is to be found the fastest. It has no library either, but for one that tests ask for: our own
// attention backward pass under another name, which may be told to go wrong.
#include <atomic>
#include <limits>

#include "cuda/choose.h"
#include "cuda/emulated/runtime.h"
#include "cuda/emulated/streams.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/library.h"
#include "cuda/table.h"
#include "engine/build_info.h"

namespace eg::emulated_backend {

Device current_device() { return {DeviceType::emulated, 0}; }
bool is_recording(Stream) { return emulated::Streams::instance().recording(); }
bool warpgroup_products() { return true; }

void add_library_ways(const std::string&, const Matmul&, std::vector<Way<Matmul>>*) {}
void add_library_ways(const std::string&, const AttentionFwd&, std::vector<Way<AttentionFwd>>*) {}
void add_library_ways(const std::string&, const AttentionBwd& a, std::vector<Way<AttentionBwd>>* ways) {
  const std::optional<std::uint64_t> fails_at = emulated::settings().library;
  if (!fails_at || a.dqkv.dtype != DType::bf16) return;
  const auto run = [ours = ways->back().run, fails_at](const AttentionBwd& b, Stream s) {
    ours(b, s);
    // Counted where it runs, so that a step that is replayed goes wrong as well.
    emulated::emulated_runtime().call_host(s, "a library that fails", [out = b.dqkv.as<bf16>(), fails_at] {
      static std::atomic<std::uint64_t> calls{0};
      if (const std::uint64_t n = ++calls; *fails_at > 0 && n >= *fails_at)
        out[0] = bf16(std::numeric_limits<float>::quiet_NaN());
    });
  };
  Way<AttentionBwd>& way = ways->emplace_back();
  way.implementation = {"library-backward", true, true}, way.run = run;
}
std::vector<std::string> implementation_names() {
  std::vector<std::string> names{"tile-128",     "tile-64", "warpgroup-256", "warpgroup-128",
                                 "tensor-cores", "plain",   "one-kernel",    "two-kernels"};
  if (emulated::settings().library) names.push_back("library-backward");
  return names;
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
