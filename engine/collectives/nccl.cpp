// engine/collectives/nccl.cpp - see nccl.h.
#include "engine/collectives/nccl.h"

#include "engine/error.h"

namespace eg {
namespace {
NcclBackend& backend() {
  static NcclBackend b;
  return b;
}
}  // namespace

void register_nccl(NcclBackend b) { backend() = b; }
bool have_nccl() { return backend().make != nullptr; }

std::unique_ptr<Collectives> nccl_collectives(Store& store, const NcclOptions& options) {
  check(have_nccl(), Kind::device, [] {
    return std::string(
        "GPUs cannot talk to each other in this build: it has no NCCL. Configure with -DEVERGRAD_CUDA=ON where NCCL is "
        "installed (Debian: libnccl-dev, pip: nvidia-nccl-cu13), or run ranks on CPUs with --device cpu");
  });
  return backend().make(store, options);
}

std::function<std::uint64_t()> nccl_progress(const Collectives& nccl) {
  check(have_nccl() && nccl.name() == "nccl", Kind::internal,
        [&] { return cat("collectives of kind ", nccl.name(), " have no device counter"); });
  return backend().progress(nccl);
}

}  // namespace eg
