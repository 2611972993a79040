// engine/collectives/loopback.cpp - see loopback.h.
#include "engine/collectives/loopback.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/collectives/ordered_sum.h"
#include "engine/error.h"

namespace eg {
namespace {

/// What one rank brings to an operation.
struct Posted {
  const char* operation = "";
  const void* data = nullptr;
  std::int64_t count = 0;
  DType dtype = DType::u8;
  int root = 0;
};

struct Meeting {
  explicit Meeting(int n) : size(n), posted(std::size_t(n)), scratch(std::size_t(n)), texts(std::size_t(n)) {}

  void wait() {
    std::unique_lock lock(mutex);
    throw_if_aborted();
    const std::int64_t now = generation;
    if (++arrived == size) {
      arrived = 0, ++generation;
      met.notify_all();
      return;
    }
    met.wait(lock, [&] { return generation != now || aborted; });
    if (generation == now) throw_if_aborted();
  }
  void abort(const std::string& text) {
    const std::lock_guard lock(mutex);
    if (!aborted) aborted = true, why = text;
    met.notify_all();
  }
  void throw_if_aborted() const {
    check(!aborted, Kind::io, [&] { return cat("another rank ended the run: ", why); });
  }

  const int size;
  std::vector<Posted> posted;
  std::vector<std::vector<std::byte>> scratch;
  std::vector<std::string> texts;
  std::mutex mutex;
  std::condition_variable met;
  int arrived = 0;
  std::int64_t generation = 0;
  bool aborted = false;
  std::string why;
};

class Loopback final : public Collectives {
 public:
  Loopback(std::shared_ptr<Meeting> meeting, int rank) : m_(std::move(meeting)), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return m_->size; }
  bool deterministic() const override { return true; }
  std::string name() const override { return "loopback"; }

  // Every rank adds up one part of the elements, then takes the others' parts.
  void all_reduce(void* data, std::int64_t count, DType dtype, Stream) override {
    check_summable(dtype, "all_reduce");
    meet({"all_reduce", data, count, dtype});
    sum_own_part(count, dtype);
    for (int r = 0; r < size(); ++r) take_sums(data, count, dtype, r);
    m_->wait();
    sent_ += others_parts(count, dtype) + to_others(count, dtype);
  }
  void reduce_scatter(void* data, std::int64_t count, DType dtype, Stream) override {
    check_summable(dtype, "reduce_scatter");
    meet({"reduce_scatter", data, count, dtype});
    sum_own_part(count, dtype);
    take_sums(data, count, dtype, rank_);
    m_->wait();
    sent_ += others_parts(count, dtype);
  }
  void all_gather(void* data, std::int64_t count, DType dtype, Stream) override {
    meet({"all_gather", data, count, dtype});
    for (int r = 0; r < size(); ++r) {
      const RankPart p = RankPart::of(count, r, size());
      const std::size_t at = std::size_t(p.begin) * size_of(dtype), bytes = std::size_t(p.size) * size_of(dtype);
      if (r != rank_ && bytes)
        std::memcpy(static_cast<std::byte*>(data) + at, static_cast<const std::byte*>(posted(r)) + at, bytes);
    }
    m_->wait();
    sent_ += to_others(count, dtype);
  }
  void broadcast(void* data, std::int64_t bytes, int root, Stream) override {
    check(root >= 0 && root < size(), Kind::internal,
          [&] { return cat("a broadcast from rank ", root, " of ", size(), " ranks"); });
    meet({"broadcast", data, bytes, DType::u8, root});
    if (bytes && rank_ != root) std::memcpy(data, posted(root), std::size_t(bytes));
    m_->wait();
  }
  void barrier() override { meet({"barrier"}); }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    m_->texts[std::size_t(rank_)] = mine;
    meet({"all_gather_bytes"});
    const std::vector<std::string> all = m_->texts;
    m_->wait();
    return all;
  }
  /// What processes would send for these operations.
  std::int64_t bytes_sent() const override { return sent_; }
  void abort(const std::string& why) noexcept override { m_->abort(why); }

 private:
  const void* posted(int r) const { return m_->posted[std::size_t(r)].data; }

  /// Returns when everybody has come, to the same operation.
  void meet(const Posted& mine) {
    m_->posted[std::size_t(rank_)] = mine;
    m_->wait();
    for (int r = 0; r < size(); ++r) {
      const Posted& p = m_->posted[std::size_t(r)];
      const bool same = !std::strcmp(p.operation, mine.operation) && p.count == mine.count && p.dtype == mine.dtype &&
                        p.root == mine.root;
      check(same, Kind::internal, [&] {
        return cat("ranks disagree: rank ", rank_, " calls ", mine.operation, " of ", mine.count, ' ', mine.dtype,
                   " from ", mine.root, ", rank ", r, " calls ", p.operation, " of ", p.count, ' ', p.dtype, " from ",
                   p.root);
      });
    }
    m_->wait();  // all have compared: the slots may be written again
  }

  /// Into this rank's scratch. Returns when all have read everybody's data, which may be written again.
  void sum_own_part(std::int64_t count, DType dtype) {
    const RankPart own = RankPart::of(count, rank_, size());
    std::vector<const void*> parts;
    for (int r = 0; r < size(); ++r)
      parts.push_back(static_cast<const std::byte*>(posted(r)) + std::size_t(own.begin) * size_of(dtype));
    std::vector<std::byte>& sums = m_->scratch[std::size_t(rank_)];
    sums.resize(std::size_t(own.size) * size_of(dtype));
    ordered_sum(parts, sums.data(), own.size, dtype);
    m_->wait();
  }
  void take_sums(void* data, std::int64_t count, DType dtype, int r) const {
    const std::vector<std::byte>& sums = m_->scratch[std::size_t(r)];
    const std::size_t at = std::size_t(RankPart::of(count, r, size()).begin) * size_of(dtype);
    if (!sums.empty()) std::memcpy(static_cast<std::byte*>(data) + at, sums.data(), sums.size());
  }
  std::int64_t own_bytes(std::int64_t count, DType dtype) const {
    return RankPart::of(count, rank_, size()).size * std::int64_t(size_of(dtype));
  }
  std::int64_t others_parts(std::int64_t count, DType dtype) const {
    return count * std::int64_t(size_of(dtype)) - own_bytes(count, dtype);
  }
  std::int64_t to_others(std::int64_t count, DType dtype) const { return own_bytes(count, dtype) * (size() - 1); }

  std::shared_ptr<Meeting> m_;
  int rank_;
  std::int64_t sent_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Collectives>> loopback_ranks(int size) {
  check(size >= 1, Kind::usage, [&] { return cat("a run cannot have ", size, " ranks"); });
  const auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<Collectives>> ranks;
  for (int r = 0; r < size; ++r) ranks.push_back(std::make_unique<Loopback>(meeting, r));
  return ranks;
}

void run_loopback(int size, const std::function<void(std::shared_ptr<Collectives>)>& body) {
  std::vector<std::shared_ptr<Collectives>> ranks;
  for (auto& r : loopback_ranks(size)) ranks.push_back(std::move(r));
  std::mutex mutex;
  std::exception_ptr first;  // the failure that made the others fail
  const auto run = [&](const std::shared_ptr<Collectives>& rank) {
    try {
      body(rank);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
      rank->abort(cat("rank ", rank->rank(), " failed"));
    }
  };
  std::vector<std::thread> threads;
  for (const auto& rank : ranks) threads.emplace_back([&run, rank] { run(rank); });
  for (std::thread& t : threads) t.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace eg
