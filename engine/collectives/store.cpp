// engine/collectives/store.cpp - what all kinds of stores share, and the one in memory.
#include "engine/collectives/store.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "engine/error.h"

namespace eg {
namespace {

/// Sleeps between polls: 1 ms at first, growing to 100 ms, so that neither a short wait is long nor a long one busy.
class Pace {
 public:
  void rest(const Deadline& deadline) {
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(next_, deadline.left())));
    next_ = std::min(0.1, next_ * 1.5);
  }

 private:
  double next_ = 0.001;
};

struct Table {
  std::mutex mutex;
  std::map<std::string, std::string> values;
  std::map<std::string, std::int64_t> counters;
};

class MemoryStore : public Store {
 public:
  MemoryStore(int rank, int size, std::shared_ptr<Table> table) : Store(rank, size), table_(std::move(table)) {}
  std::string where() const override { return "memory"; }
  void set(const std::string& key, const std::string& value) override {
    check_entry(key, value);
    const std::lock_guard lock(table_->mutex);
    table_->values[key] = value;
  }
  std::optional<std::string> find(const std::string& key) override {
    const std::lock_guard lock(table_->mutex);
    const auto at = table_->values.find(key);
    return at == table_->values.end() ? std::nullopt : std::optional(at->second);
  }
  std::int64_t add(const std::string& key, std::int64_t amount) override {
    check_entry(key);
    const std::lock_guard lock(table_->mutex);
    return table_->counters[key] += amount;
  }
  std::map<std::string, std::string> list(const std::string& prefix) override {
    const std::lock_guard lock(table_->mutex);
    std::map<std::string, std::string> found;
    for (auto at = table_->values.lower_bound(prefix); at != table_->values.end() && at->first.rfind(prefix, 0) == 0;
         ++at)
      found.insert(*at);
    return found;
  }
  std::unique_ptr<Store> second() override { return std::make_unique<MemoryStore>(rank(), size(), table_); }
  void set_patience(double) override {}

 private:
  std::shared_ptr<Table> table_;
};

Launch at_tcp(Launch launch, const std::string& rendezvous) {
  const std::string text = rendezvous.substr(6);
  const std::size_t colon = text.rfind(':');
  int port = 0;
  const char* end = text.data() + text.size();
  const bool ok = colon != std::string::npos && colon > 0 &&
                  std::from_chars(text.data() + colon + 1, end, port).ptr == end && port > 0 && port < 65536;
  check(ok, Kind::usage,
        [&] { return cat("the rendezvous '", rendezvous, "' is not tcp://HOST:PORT (port 1 to 65535)"); });
  launch.master_addr = text.substr(0, colon), launch.master_port = port;
  if (launch.master_addr.size() > 2 && launch.master_addr[0] == '[')  // [::1]
    launch.master_addr = launch.master_addr.substr(1, launch.master_addr.size() - 2);
  return launch;
}

}  // namespace

double Deadline::left() const {
  return std::max(0.0, std::chrono::duration<double>(at - std::chrono::steady_clock::now()).count());
}

Deadline within(double seconds) {
  const double bounded = std::clamp(seconds, 0.0, 1e8);
  return {std::chrono::steady_clock::now() + std::chrono::microseconds(std::int64_t(bounded * 1e6)), seconds};
}

void check_entry(const std::string& key, const std::string& value) {
  const bool plain = std::none_of(key.begin(), key.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; });
  check(!key.empty() && key.size() <= Store::kLongestKey && plain, Kind::usage, [&] {
    return cat("a store's key has 1 to ", Store::kLongestKey, " characters and no control characters; this one has ",
               key.size());
  });
  check(value.size() <= Store::kLongestValue, Kind::usage, [&] {
    return cat("the value of the store's key '", key, "' has ", value.size(), " bytes; at most ", Store::kLongestValue);
  });
}

std::string Store::get(const std::string& key, const Deadline& deadline) {
  for (Pace pace;; pace.rest(deadline)) {
    if (auto value = find(key)) return *value;
    if (const auto why = trouble()) {
      if (auto value = find(key)) return *value;  // what came before the trouble counts
      eg::fail(Kind::io, *why);
    }
    check(!deadline.over(), Kind::io, [&] {
      return cat("rank ", rank_, ": nobody has set '", key, "' in the store ", where(), " within ", deadline.seconds,
                 " s");
    });
  }
}

std::vector<std::string> Store::gather(const std::string& name, const std::string& mine, const Deadline& deadline) {
  set(cat(name, "/", rank_), mine);
  std::int64_t arrived = add(name, 1);
  for (Pace pace; arrived < size_; arrived = add(name, 0)) {
    if (const auto why = trouble()) {
      // Who failed after all had arrived (because of what they said, perhaps) failed somewhere else.
      if (add(name, 0) >= size_) break;
      eg::fail(Kind::io, *why);
    }
    if (deadline.over()) {
      const auto entries = list(name + "/");
      std::vector<int> missing;
      for (int r = 0; r < size_; ++r)
        if (entries.count(cat(name, "/", r)) == 0) missing.push_back(r);
      eg::fail(Kind::io, cat("rank ", rank_, ": ", missing.size() == 1 ? "rank " : "ranks ", rank_list(missing), " of ",
                             size_, missing.size() == 1 ? " has" : " have", " not arrived at '", name, "' after ",
                             deadline.seconds, " s (store ", where(), "); look at ",
                             missing.size() == 1 ? "its" : "their", " output, or allow more time"));
    }
    pace.rest(deadline);
  }
  const auto entries = list(name + "/");
  std::vector<std::string> all;
  for (int r = 0; r < size_; ++r) {
    const auto at = entries.find(cat(name, "/", r));
    check(at != entries.end(), Kind::io, [&] { return cat("the store ", where(), " has lost '", name, "/", r, "'"); });
    all.push_back(at->second);
  }
  return all;
}

void Store::fail(const std::string& why) noexcept {
  try {
    if (add("troubles", 1) == 1) set(kTrouble, why.substr(0, kLongestValue));
  } catch (const std::exception&) {  // the keeper has gone: nobody is there to be told
  }
}

std::vector<std::unique_ptr<Store>> memory_stores(int size) {
  const auto table = std::make_shared<Table>();
  std::vector<std::unique_ptr<Store>> stores;
  for (int r = 0; r < size; ++r) stores.push_back(std::make_unique<MemoryStore>(r, size, table));
  return stores;
}

std::unique_ptr<Store> open_store(const Launch& launch, const Deadline& deadline, const std::string& rendezvous) {
  if (rendezvous.rfind("file://", 0) == 0) return file_store(launch, rendezvous.substr(7));
  if (rendezvous.rfind("tcp://", 0) == 0) return tcp_store(at_tcp(launch, rendezvous), deadline);
  check(rendezvous.empty(), Kind::usage,
        [&] { return cat("the rendezvous '", rendezvous, "' is neither tcp://HOST:PORT nor file:///FOLDER"); });
  if (launch.size == 1) return std::move(memory_stores(1)[0]);
  check(!launch.master_addr.empty(), Kind::usage, [&] {
    return cat(
        "rank ", launch.rank, " of ", launch.size, ", started by ", launch.how,
        ", does not know where ranks meet; set MASTER_ADDR and MASTER_PORT to rank 0's host and a free port "
        "(mpirun -x MASTER_ADDR=... -x MASTER_PORT=...), or EVERGRAD_RENDEZVOUS=file:///SHARED/FOLDER with a new "
        "EVERGRAD_NONCE");
  });
  return tcp_store(launch, deadline);
}

std::string rendezvous_of_environment() {
  const char* value = std::getenv("EVERGRAD_RENDEZVOUS");
  return value == nullptr ? "" : value;
}

std::string rank_list(const std::vector<int>& ranks) {
  std::string text;
  int ranges = 0;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (++ranges > 12) return text + " and others";
    text += cat(text.empty() ? "" : ", ", ranks[i]);
    if (last > i) text += cat(last == i + 1 ? ", " : " to ", ranks[last]);
    i = last + 1;
  }
  return text;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "an unknown host";
}

}  // namespace eg
