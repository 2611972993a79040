// tests/apps/test_rank_files.cpp - what ranks compare before they open the run folder.
#include <doctest/doctest.h>

#include "apps/distributed/rank_files.h"
#include "engine/collectives/loopback.h"
#include "engine/error.h"

using namespace eg;

namespace {

Config of(const char* precision, int threads) {
  Config c;
  c.set("threads", threads), c.set("precision", precision);
  return c;
}

/// What rank `me` of as many ranks as there are configurations throws, or nothing.
std::string refused(const std::vector<Config>& configs, int me) {
  std::string text;
  run_loopback(int(configs.size()), [&](std::shared_ptr<Collectives> ranks) {
    try {
      check_same_config_on_ranks(configs[std::size_t(ranks->rank())], *ranks);
    } catch (const Error& e) {
      if (ranks->rank() == me) text = e.kind == Kind::usage ? e.what() : "another kind of error";
    }
  });
  return text;
}

}  // namespace

TEST_CASE("rank files: what the ranks made of one command is compared, but for threads") {
  for (const int me : {0, 1, 2}) {
    CHECK(refused({of("bf16", 2), of("bf16", 4), of("bf16", 2)}, me) == "");
    const std::string text = refused({of("bf16", 2), of("bf16", 2), of("fp32", 2)}, me);
    INFO(text);
    CHECK(text.find("precision is \"bf16\" on rank 0 and \"fp32\" on rank 2") != std::string::npos);
    CHECK(text.find("set --precision") != std::string::npos);
  }
}
