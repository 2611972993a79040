// tests/ranks/rank_probe.cpp - one rank of a run that does nothing but meet, handshake and sum, and misbehaves on request.
// tests/scripts/test_rendezvous.py starts several, kills, stops and delays them, and reads what the others say.
//
//   rank_probe [--steps N] [--step-ms M] [--config TEXT] [--run DIR] [--rank-deadline S] [--step-deadline S]
//              [--rendezvous URI] [--sleep STEP:SECONDS] [--split STEP] [--throw STEP]
// The last three concern the rank that gets them. Prints "step N" after each step and "sum X" at the end.
#include <unistd.h>

#include <cstring>
#include <iostream>
#include <map>

#include "engine/collectives/session.h"
#include "engine/error.h"

using namespace eg;

namespace {

/// Collectives over the store, for tests: as slow as it sounds, and like a real backend it waits for ever.
class StoreCollectives : public Collectives {
 public:
  explicit StoreCollectives(Store& store) : store_(store) {}
  int rank() const override { return store_.rank(); }
  int size() const override { return store_.size(); }
  bool deterministic() const override { return true; }
  std::string name() const override { return "store"; }

  void all_reduce(void* data, std::int64_t count, DType dtype, Stream) override {
    check(dtype == DType::f64, Kind::dtype, [] { return std::string("the test's sum takes f64"); });
    auto* mine = static_cast<double*>(data);
    const auto all = all_gather_bytes(std::string(static_cast<const char*>(data), std::size_t(count) * 8));
    std::fill(mine, mine + count, 0.0);
    for (const std::string& text : all)
      for (std::int64_t i = 0; i < count; ++i) {
        double x = 0.0;
        std::memcpy(&x, text.data() + i * 8, 8);
        mine[i] += x;
      }
  }
  void reduce_scatter(void*, std::int64_t, DType, Stream) override { fail(Kind::internal, "not in this test"); }
  void all_gather(void*, std::int64_t, DType, Stream) override { fail(Kind::internal, "not in this test"); }
  void broadcast(void*, std::int64_t, int, Stream) override { fail(Kind::internal, "not in this test"); }
  void barrier() override { exchange("barrier", ""); }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return exchange("gather", mine); }
  void abort(const std::string&) noexcept override {}

 private:
  /// Ranks in different collectives do not find each other, as with a real backend.
  std::vector<std::string> exchange(const char* what, const std::string& mine) {
    const std::string key = cat("toy/", what, "/", ++calls_, "/");
    store_.set(cat(key, rank()), mine);
    std::vector<std::string> all;
    for (int r = 0; r < size(); ++r) {
      std::optional<std::string> text;
      while (!(text = store_.find(cat(key, r)))) ::usleep(1000);
      all.push_back(*text);
    }
    return all;
  }
  Store& store_;
  std::int64_t calls_ = 0;
};

struct Flags {
  std::map<std::string, std::string> given;
  Flags(int argc, char** argv) {
    for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
  }
  std::string text(const char* name, const char* otherwise = "") const {
    const auto at = given.find(name);
    return at == given.end() ? otherwise : at->second;
  }
  double number(const char* name, const char* otherwise) const { return std::stod(text(name, otherwise)); }
};

int run(const Flags& flags) {
  SessionOptions options;
  options.config = flags.text("--config"), options.rendezvous = flags.text("--rendezvous");
  options.rank_deadline = flags.number("--rank-deadline", "30"),
  options.step_deadline = flags.number("--step-deadline", "0");
  RankSession session(detect_launch(), options);
  const auto ranks = session.watch(std::make_unique<StoreCollectives>(session.store()), flags.text("--run"));
  ranks->barrier();
  const std::string sleep = flags.text("--sleep", "-1:0");
  const double sleep_at = std::stod(sleep), sleep_seconds = std::stod(sleep.substr(sleep.find(':') + 1));
  double sum = 0.0;
  for (int step = 0; step < int(flags.number("--steps", "5")); ++step) {
    ::usleep(useconds_t(1000 * flags.number("--step-ms", "10")));
    if (step == int(sleep_at)) ::usleep(useconds_t(1e6 * sleep_seconds));
    check(step != int(flags.number("--throw", "-1")), Kind::io,
          [] { return std::string("planted: the disk of this rank is full"); });
    double value[2] = {double(ranks->rank() + 1), sum};
    if (step == int(flags.number("--split", "-1"))) ranks->barrier();
    ranks->all_reduce(value, 2, DType::f64, {});
    sum += value[0];
    session.watchdog()->step();
    std::cout << "step " << step << std::endl;
  }
  ranks->barrier();
  std::cout << "sum " << sum << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(Flags(argc, argv));
  } catch (const Error& e) {
    std::cerr << "evergrad: " << e.what() << std::endl;
    return e.kind == Kind::usage ? 2 : 1;
  } catch (const std::exception& e) {
    std::cerr << "rank_probe: " << e.what() << std::endl;
    return 1;
  }
}
