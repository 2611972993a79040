// Ranks that must not run together are refused with the values and the ranks that hold them.
#include <doctest/doctest.h>

#include <thread>

#include "engine/collectives/handshake.h"
#include "engine/error.h"

using namespace eg;

namespace {

std::vector<RankCard> three() {
  std::vector<RankCard> cards;
  for (int r = 0; r < 3; ++r)
    cards.push_back(
        {r, r, "n1", 100 + r, "0.1.0", "Release", "c0ffee", cat("cuda:", r), cat("0000:0", r, ":00.0"), "10.0.0.1"});
  return cards;
}

std::string refused(const std::vector<RankCard>& cards, int rank, bool share = false) {
  try {
    check_cards(cards, rank, share);
  } catch (const Error& e) {
    CHECK(e.kind == Kind::usage);
    return e.what();
  }
  return "";
}

bool says(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  MESSAGE("expected '", part, "' in: ", text);
  return false;
}

}  // namespace

TEST_CASE("handshake: what must agree") {
  CHECK(refused(three(), 0) == "");
  auto cards = three();
  cards[1].config = "beef";
  CHECK(says(refused(cards, 1), "configuration: beef (rank 1), c0ffee (ranks 0, 2)"));
  CHECK(refused(cards, 1).find('\n') == std::string::npos);
  CHECK(says(refused(cards, 0), "\nrank  local  host  address   pid"));  // the table, once a job
  CHECK(says(refused(cards, 0), "n1    10.0.0.1  100"));
  cards = three();
  cards[2].version = "0.2.0", cards[0].build = "Debug";
  CHECK(says(refused(cards, 2), "version: 0.1.0 (ranks 0, 1), 0.2.0 (rank 2)"));
  CHECK(says(refused(cards, 2), "build: Debug (rank 0), Release (ranks 1, 2)"));
  cards = three();
  cards[2].device = "cpu", cards[2].bus_id = "";
  CHECK(says(refused(cards, 2), "kind of device: cpu (rank 2), cuda (ranks 0, 1)"));
}

TEST_CASE("handshake: a GPU belongs to one rank") {
  auto cards = three();
  cards[2].bus_id = cards[0].bus_id;
  CHECK(says(refused(cards, 1), "GPU 0000:00:00.0 of n1 is used by ranks 0, 2"));
  CHECK(refused(cards, 1, true) == "");
  cards[2].host = "n2";  // the same address on another host is another GPU
  CHECK(refused(cards, 1) == "");
  for (RankCard& c : cards) c.device = "cpu", c.bus_id = "";
  CHECK(refused(cards, 1) == "");
}

TEST_CASE("handshake: cards travel through the store") {
  set_bus_id({DeviceType::cuda, 7}, "0000:3b:00.0");
  Launch l;
  l.rank = 1, l.size = 2, l.local_rank = 7;
  CHECK(device_of_rank(l, "cuda") == Device{DeviceType::cuda, 7});
  CHECK(device_of_rank(l, "cuda:2") == Device{DeviceType::cuda, 2});
  auto stores = memory_stores(2);
  std::vector<RankCard> seen;
  const RankCard second = card_of(l, {DeviceType::cuda, 7}, "lr = 1");
  std::thread other([&] { seen = exchange_cards(*stores[1], second, within(20)); });
  l.rank = 0, l.local_rank = 0;
  const auto mine = exchange_cards(*stores[0], card_of(l, kCpu, ""), within(20));
  other.join();
  REQUIRE(seen.size() == 2);
  CHECK(card_table(seen) == card_table(mine));
  CHECK(seen[1].bus_id == "0000:3b:00.0");
  CHECK(seen[1].address == "-");  // a store in memory is nowhere
  CHECK(seen[1].config.size() == 16);
  CHECK(seen[0].config == "");
  CHECK(seen[0].build == seen[1].build);
  CHECK(seen[0].device == "cpu");
  CHECK(seen[1].local_rank == 7);
}
