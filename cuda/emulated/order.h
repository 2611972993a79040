// cuda/emulated/order.h - what happens before what, over streams, events, recordings and waits of the host.
//
// Vector clocks (Mattern, "Virtual time and global states of distributed systems", 1989). A chain is a stream, or a path through
// a recording; its work is numbered 1, 2, ... in order. What a piece of work has behind it is, for every chain, a number. All of
// it follows from the calls of the host alone, and not from the order in which lazy streams happen to run: a missing wait is
// known whether or not it did harm.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace eg::emulated {

/// Of every chain, how much of it lies behind.
class Behind {
 public:
  std::uint64_t of(int chain) const { return std::size_t(chain) < numbers_.size() ? numbers_[std::size_t(chain)] : 0; }
  void set(int chain, std::uint64_t number) {
    if (std::size_t(chain) >= numbers_.size()) numbers_.resize(std::size_t(chain) + 1);
    numbers_[std::size_t(chain)] = number;
  }
  void join(const Behind& other) {
    if (other.numbers_.size() > numbers_.size()) numbers_.resize(other.numbers_.size());
    for (std::size_t i = 0; i < other.numbers_.size(); ++i)
      if (other.numbers_[i] > numbers_[i]) numbers_[i] = other.numbers_[i];
  }

 private:
  std::vector<std::uint64_t> numbers_;
};

/// One piece of work: number `number` of its chain, and what it has behind it (itself included).
struct Moment {
  int chain = 0;
  std::uint64_t number = 0;
  std::shared_ptr<const Behind> behind;  // null: nobody watches
  /// True when `other` is over before this one begins.
  bool after(int other_chain, std::uint64_t other_number) const { return behind->of(other_chain) >= other_number; }
};

/// The chains of the process, and what the host has waited for: any of its threads, which are taken to tell each other.
class Order {
 public:
  int new_chain() {
    begun_.push_back(0);
    return int(begun_.size()) - 1;
  }
  /// The next piece of work of a chain that has `behind` behind it; adds the piece to `behind`.
  Moment next(int chain, Behind& behind) {
    behind.join(host_);
    behind.set(chain, ++begun_[std::size_t(chain)]);
    return {chain, begun_[std::size_t(chain)], std::make_shared<const Behind>(behind)};
  }
  void host_waited_for(const Behind& behind) { host_.join(behind); }
  void host_waited_for_all() {
    for (std::size_t i = 0; i < begun_.size(); ++i) host_.set(int(i), begun_[i]);
  }
  const Behind& host() const { return host_; }
  /// True when the host has waited for everything that was ever enqueued.
  bool settled() const {
    for (std::size_t i = 0; i < begun_.size(); ++i)
      if (host_.of(int(i)) < begun_[i]) return false;
    return true;
  }

 private:
  std::vector<std::uint64_t> begun_ = {0};  // of chain 0, the null stream
  Behind host_;
};

}  // namespace eg::emulated
