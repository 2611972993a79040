// engine/collectives/single.cpp - one rank alone: every sum has one term.
#include "engine/collectives/collectives.h"

#include "engine/error.h"

namespace eg {
namespace {

class Single final : public Collectives {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  bool deterministic() const override { return true; }
  std::string name() const override { return "single"; }
  void all_reduce(void*, std::int64_t, DType, Stream) override {}
  void reduce_scatter(void*, std::int64_t, DType, Stream) override {}
  void all_gather(void*, std::int64_t, DType, Stream) override {}
  void broadcast(void*, std::int64_t, int root, Stream) override {
    check(root == 0, Kind::internal, [&] { return cat("a broadcast from rank ", root, " of one rank"); });
  }
  void barrier() override {}
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return {mine}; }
  void abort(const std::string&) noexcept override {}
};

}  // namespace

std::unique_ptr<Collectives> single_rank() { return std::make_unique<Single>(); }

}  // namespace eg
