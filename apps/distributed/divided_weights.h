// apps/distributed/divided_weights.h - the weights of ranks that divide the update (--zero 1; Rajbhandari et al. 2020,
// arXiv:1910.02054).
//
// A step leaves every rank with new weights in its own pieces of the arena. They are gathered by the next forward pass: on a stream
// beside it, range by range in the order in which it reads them, and a block waits for its own ranges alone. Where the forward pass
// reads a bf16 copy, that copy is what is gathered, and of the masters a rank keeps its pieces.
#pragma once
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/collectives/division.h"
#include "engine/side_stream.h"
#include "layers/param.h"
#include "optim/optimizer.h"

namespace eg {

/// Throws Error{usage} for a method whose update is not a matter of single weights, and for interventions.
void check_divides(const MethodSpec& spec);

class DividedWeights {
 public:
  /// params: in forward order, of an arena that has its values, the same on all ranks; depth: number of blocks. From now on the masters of
  /// an arena with a working copy are ParamArena::own_master. Frozen parameters stay as they are on all ranks.
  DividedWeights(ParamArena& arena, std::span<Param* const> params, int depth, Division division);
  ~DividedWeights();
  DividedWeights(const DividedWeights&) = delete;
  DividedWeights& operator=(const DividedWeights&) = delete;

  /// Enqueues the gathering of all weights beside what follows on `main`.
  void gather_behind(Stream main);
  /// What follows on `main` may read a block; -1: what comes before the blocks, depth: what comes after. In this order.
  void wait_for(int block, Stream main);
  /// Now, and waits for the device.
  void gather();
  /// After this rank's pieces of the masters were replaced by others: everything.
  void refresh();

  /// While it lives, ParamArena::master and every Param::master are whole on all ranks, or Param::master of some parameters alone; what
  /// was written there is kept. All ranks make it together.
  class Whole {
   public:
    explicit Whole(DividedWeights& weights, std::span<Param* const> some = {});
    ~Whole();
    Whole(const Whole&) = delete;
    Whole& operator=(const Whole&) = delete;

   private:
    DividedWeights& weights_;
    const std::vector<Param*> some_;
    std::vector<std::pair<Division::Range, Tensor>> ranges_;  // that hold these
  };
  /// Memory that a Whole has needed so far, at most.
  std::size_t most_lent_bytes() const { return most_lent_; }

 private:
  void point_at(const Tensor& master);
  void copy_own(const Division::Range& range, const Tensor& t, bool out) const;
  const Tensor& read() const { return arena_.work ? arena_.work : arena_.master; }

  ParamArena& arena_;
  std::span<Param* const> params_;
  const Division division_;
  std::vector<Division::Range> ranges_;  // that hold a trained parameter, in the order of the forward pass
  std::vector<std::size_t> needed_;      // [-1 .. depth]: ranges that must be there
  std::vector<Event> there_;             // one for each range
  std::size_t waited_ = 0;               // ranges that main waits for
  const Whole* whole_ = nullptr;         // who has made everything whole
  std::size_t most_lent_ = 0;
  SideStream side_;
};

}  // namespace eg
