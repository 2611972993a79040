// layers/heads.h - what happens to a classifier's head when tasks change: masks, and one head per task (reset_head and
// zero_head stand in layers/vit.h).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "layers/vit.h"

namespace eg {

/// u8 [classes] for cross_entropy: 1 for the listed classes, 0 for all others. A growing head lists all classes seen so
/// far, a masked one those of the task. Throws Error{usage} for a class out of range or an empty list.
Tensor class_mask(std::span<const std::int64_t> allowed, std::int64_t classes, Device device);

/// One head per task, kept in host memory; the model holds the one in use. Optimizer state belongs to the slot in the
/// model, not to a task: clear it when switching, or accept that it is shared.
class HeadBank {
 public:
  /// Puts the model's current head away under `from` (no task: -1) and loads the one of `to`, or draws it afresh (key
  /// redraw = to + 1) when there is none yet.
  void switch_head(Vit& v, const ParamArena& arena, std::int64_t from, std::int64_t to, std::uint64_t seed);
  /// While it lives, the model has the stored head of `task` (its own, when there is none); then its own again.
  class Lent {
   public:
    Lent(const HeadBank& bank, std::int64_t task, Vit& v, const ParamArena& arena);
    ~Lent();
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;

   private:
    Vit& v_;
    const ParamArena& arena_;
    Tensor weight_, bias_;  // the model's own; empty when nothing was lent
  };
  bool has(std::int64_t task) const { return heads_.contains(task); }
  std::size_t bytes() const;
  /// Visits what a checkpoint needs, by name ("head.3.weight"). Before a restore, add() the tasks that the file names.
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit);
  void add(std::int64_t task, const Vit& v);

 private:
  struct Stored {
    Tensor weight, bias;  // masters, on the host
  };
  std::map<std::int64_t, Stored> heads_;
};

}  // namespace eg
