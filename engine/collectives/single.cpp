// engine/collectives/single.cpp - one rank alone: every sum has one term.
#include "engine/collectives/collectives.h"

#include <cstring>

#include "engine/error.h"

namespace eg {
namespace {

class Single final : public Collectives {
 public:
  explicit Single(Device device) : device_(device) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  bool deterministic() const override { return true; }
  std::string name() const override { return "single"; }
  void all_reduce(void*, std::int64_t, DType, Stream) override {}
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype, Stream s) override {
    copy(in, out, count, dtype, s);
  }
  void all_gather(const void* in, void* out, std::int64_t count, DType dtype, Stream s) override {
    copy(in, out, count, dtype, s);
  }
  void broadcast(void*, std::int64_t, int root, Stream) override {
    check(root == 0, Kind::internal, [&] { return cat("a broadcast from rank ", root, " of one rank"); });
  }
  void barrier() override {}
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return {mine}; }
  void abort(const std::string&) noexcept override {}

 private:
  void copy(const void* in, void* out, std::int64_t count, DType dtype, Stream s) const {
    if (in != out && count > 0) runtime(device_).copy_within(out, in, std::size_t(count) * size_of(dtype), s);
  }
  Device device_;
};

}  // namespace

std::unique_ptr<Collectives> single_rank(Device device) { return std::make_unique<Single>(device); }

}  // namespace eg
