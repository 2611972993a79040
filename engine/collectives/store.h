// engine/collectives/store.h - where ranks meet before they have a communicator, and talk when it has failed.
//
// A store is a small table of texts that all ranks of one start see. Three kinds: TCP (rank 0 listens, everybody connects to
// it), a folder on a shared file system, and memory (one rank, or the threads of a test). Nothing waits for ever: every wait
// has a deadline, and its error names the ranks that did not come. A store trusts its network: it has no passwords, so give
// MASTER_ADDR an address of the cluster's own network.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/collectives/launch.h"

namespace eg {

/// A moment that no wait outlasts, and how far away it was when it was set (for messages).
struct Deadline {
  std::chrono::steady_clock::time_point at;
  double seconds = 0.0;
  double left() const;  // seconds, at least 0
  bool over() const { return std::chrono::steady_clock::now() >= at; }
};
Deadline within(double seconds);

class Store {
 public:
  Store(int rank, int size) : rank_(rank), size_(size) {}
  virtual ~Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  int rank() const { return rank_; }
  int size() const { return size_; }

  /// "tcp://n1:29500", "file:///scratch/x" or "memory".
  virtual std::string where() const = 0;
  /// Keys: 1 to 200 characters, no control characters. Values: at most 1 MiB. The last set wins.
  virtual void set(const std::string& key, const std::string& value) = 0;
  virtual std::optional<std::string> find(const std::string& key) = 0;
  /// Adds to a counter (0 before the first) and returns its new value; atomic over all ranks.
  virtual std::int64_t add(const std::string& key, std::int64_t amount) = 0;
  /// All keys that begin with `prefix`, with their values.
  virtual std::map<std::string, std::string> list(const std::string& prefix) = 0;
  /// Another way into the same store, for another thread: an object is for one thread at a time.
  virtual std::unique_ptr<Store> second() = 0;
  /// No request takes longer than this; after it the keeper of the store counts as gone. Default 30 s.
  virtual void set_patience(double seconds) = 0;

  // Each throws Error{io}: a member throws when the keeper of the store has gone or does not answer, when the deadline
  // passes, or when a rank has failed meanwhile (fail() below; a TCP store also notices a process that ended).

  /// The value of a key, waiting until somebody has set it.
  std::string get(const std::string& key, const Deadline& deadline);
  /// What every rank said under this name, in order of ranks. A name serves once.
  std::vector<std::string> gather(const std::string& name, const std::string& mine, const Deadline& deadline);
  void barrier(const std::string& name, const Deadline& deadline) { gather(name, "", deadline); }
  /// Tells all who wait, now or later, that this rank cannot go on. The first reason stays. Never throws.
  void fail(const std::string& why) noexcept;
  /// Why the start or the run has failed: set by fail(), or by the store when a process ended without a word.
  std::optional<std::string> trouble() { return find(kTrouble); }

  static constexpr const char* kTrouble = "trouble";
  static constexpr std::size_t kLongestKey = 200, kLongestValue = std::size_t(1) << 20;

 private:
  int rank_, size_;
};

/// Throws Error{usage} for a key or value that no store takes.
void check_entry(const std::string& key, const std::string& value = "");

/// Rank 0 also keeps the store: it listens on `port` (on all addresses, or only on loopback when `host` says so). All retry
/// until the deadline. A process with another nonce or number of ranks, or with a rank that is already there, is refused.
/// Destroying rank 0's store waits up to `patience` until the others have left.
std::unique_ptr<Store> tcp_store(const Launch& launch, const Deadline& deadline);
/// Entries are files in DIR/evergrad-NONCE: written under another name, then renamed; each with a checksum. The nonce must be
/// new for every start: a rank that finds itself already there is refused. The last rank that leaves removes the folder.
std::unique_ptr<Store> file_store(const Launch& launch, const std::string& folder);
/// `size` ways into one table in this process.
std::vector<std::unique_ptr<Store>> memory_stores(int size);

/// The store of a start: what `rendezvous` says ("tcp://HOST:PORT", "file:///FOLDER"), else memory for one rank, else TCP at
/// the launch's master. Throws Error{usage} when nothing says where ranks meet.
std::unique_ptr<Store> open_store(const Launch& launch, const Deadline& deadline, const std::string& rendezvous);
/// EVERGRAD_RENDEZVOUS, or empty.
std::string rendezvous_of_environment();

/// "1, 3 to 7" for people; at most a dozen ranges.
std::string rank_list(const std::vector<int>& ranks);
/// This machine's name.
std::string host_name();

}  // namespace eg
