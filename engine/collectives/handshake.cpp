// engine/collectives/handshake.cpp - see handshake.h.
#include "engine/collectives/handshake.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <mutex>

#include "engine/build_info.h"
#include "engine/collectives/preflight.h"
#include "engine/collectives/tcp_messages.h"
#include "engine/error.h"

namespace eg {
namespace {

struct BusIds {
  std::mutex mutex;
  std::map<std::string, std::string> by_device;
};
BusIds& bus_ids() {
  static BusIds ids;
  return ids;
}

std::string hash_of(const std::string& text) {
  return checksum_text(checksum_of(std::as_bytes(std::span(text.data(), text.size()))));
}

/// Two builds of one version differ in it. Read once: the file may be replaced while the run goes on.
const std::string& program_hash() {
  static const std::string hash = [] {
    try {
      return hash_of(read_file("/proc/self/exe", std::uint64_t(4) << 30)).substr(0, 8);
    } catch (const Error&) { return std::string("unknown"); }
  }();
  return hash;
}

std::int64_t integer(const std::string& text) {
  std::int64_t value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// "a (ranks 0, 1), b (rank 2)" when the ranks' values differ, else nothing.
template <class Value>
std::string differences(const std::vector<RankCard>& cards, Value&& value) {
  std::map<std::string, std::vector<int>> ranks;
  for (const RankCard& c : cards) ranks[value(c)].push_back(c.rank);
  if (ranks.size() < 2) return "";
  std::string text;
  for (const auto& [v, r] : ranks)
    text += cat(text.empty() ? "" : ", ", v.empty() ? "none" : v, r.size() == 1 ? " (rank " : " (ranks ", rank_list(r),
                ")");
  return text;
}

std::string kind_of(const std::string& device) { return device.substr(0, device.find(':')); }

std::string shared_gpus(const std::vector<RankCard>& cards) {
  std::map<std::string, std::vector<int>> ranks;
  for (const RankCard& c : cards)
    if (!c.bus_id.empty()) ranks[cat("GPU ", c.bus_id, " of ", c.host)].push_back(c.rank);
  std::string text;
  for (const auto& [gpu, r] : ranks)
    if (r.size() > 1) text += cat(text.empty() ? "" : "; ", gpu, " is used by ranks ", rank_list(r));
  return text;
}

}  // namespace

void set_bus_id(Device device, const std::string& bus_id) {
  const std::lock_guard lock(bus_ids().mutex);
  bus_ids().by_device[to_string(device)] = bus_id;
}

Device device_of_rank(const Launch& launch, const std::string& text) {
  return text == "cuda" ? Device{DeviceType::cuda, launch.local_rank} : parse_device(text);
}

RankCard card_of(const Launch& launch, Device device, const std::string& config) {
  const BuildInfo b = build_info();
  RankCard card;
  card.rank = launch.rank, card.local_rank = launch.local_rank, card.host = host_name(), card.pid = ::getpid();
  card.version = b.version;
  card.build = cat(b.build_type, b.sanitizers.empty() ? "" : " ", b.sanitizers, ", ", b.compiler, ", ", program_hash());
  card.config = config.empty() ? "" : hash_of(config);
  card.device = to_string(device);
  const std::lock_guard lock(bus_ids().mutex);
  if (const auto at = bus_ids().by_device.find(card.device); at != bus_ids().by_device.end()) card.bus_id = at->second;
  return card;
}

std::vector<RankCard> exchange_cards(Store& store, const RankCard& mine, const Deadline& deadline) {
  const auto texts =
      store.gather("card",
                   pack({std::to_string(mine.local_rank), mine.host, std::to_string(mine.pid), mine.version, mine.build,
                         mine.config, mine.device, mine.bus_id, address_towards(store.where())}),
                   deadline);
  std::vector<RankCard> cards;
  for (std::size_t r = 0; r < texts.size(); ++r) {
    const auto f = texts[r].size() < 4 ? std::nullopt : unpack(std::string_view(texts[r]).substr(4));
    check(f && f->size() == 9, Kind::io, [&] {
      return cat("rank ", store.rank(), " cannot read the card of rank ", r,
                 "; does it run another version of evergrad?");
    });
    cards.push_back({int(r), int(integer((*f)[0])), (*f)[1], integer((*f)[2]), (*f)[3], (*f)[4], (*f)[5], (*f)[6],
                     (*f)[7], (*f)[8]});
  }
  return cards;
}

void check_cards(const std::vector<RankCard>& cards, int my_rank, bool share_gpu) {
  std::vector<std::string> wrong;
  const auto compare = [&](const char* what, const char* remedy, const auto& value) {
    if (const std::string d = differences(cards, value); !d.empty())
      wrong.push_back(cat("They differ in ", what, ": ", d, "; ", remedy));
  };
  compare("version", "install one version everywhere", [](const RankCard& c) { return c.version; });
  compare("build", "start the same program file on all hosts", [](const RankCard& c) { return c.build; });
  compare("configuration", "give all ranks the same flags and files", [](const RankCard& c) { return c.config; });
  compare("kind of device", "give all ranks the same --device", [](const RankCard& c) { return kind_of(c.device); });
  if (const std::string shared = shared_gpus(cards); !shared.empty() && !share_gpu)
    wrong.push_back(shared + "; start as many ranks on a host as it has GPUs, or give each its own --device cuda:N");
  if (wrong.empty()) return;
  std::string text = cat("the ", cards.size(), " ranks cannot start together. ");
  for (const std::string& w : wrong) text += cat(w, ". ");
  text.pop_back();
  if (my_rank == 0) text += "\n" + card_table(cards);
  fail(Kind::usage, text);
}

std::string card_table(const std::vector<RankCard>& cards) {
  std::vector<std::vector<std::string>> rows{
      {"rank", "local", "host", "address", "pid", "device", "bus id", "version", "config", "build"}};
  for (const RankCard& c : cards)
    rows.push_back({std::to_string(c.rank), std::to_string(c.local_rank), c.host, c.address, std::to_string(c.pid),
                    c.device, c.bus_id.empty() ? "-" : c.bus_id, c.version, c.config.empty() ? "-" : c.config,
                    c.build});
  std::vector<std::size_t> width(rows[0].size());
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i)
      text += row[i] + (i + 1 < row.size() ? std::string(width[i] - row[i].size() + 2, ' ') : "\n");
  }
  return text;
}

}  // namespace eg
