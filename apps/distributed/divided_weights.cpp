// apps/distributed/divided_weights.cpp - see divided_weights.h.
#include "apps/distributed/divided_weights.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "engine/error.h"
#include "engine/kernels.h"

namespace eg {

DividedWeights::DividedWeights(ParamArena& arena, std::span<Param* const> params, int depth, Division division)
    : arena_(arena), params_(params), division_(std::move(division)), side_(arena.device) {
  const auto trained = [&](const Division::Range& r) {
    return std::any_of(params.begin(), params.end(),
                       [&](const Param* p) { return !p->frozen && p->offset >= r.begin && p->offset < r.end; });
  };
  std::copy_if(division_.ranges.begin(), division_.ranges.end(), std::back_inserter(ranges_), trained);
  std::reverse(ranges_.begin(), ranges_.end());  // the arena begins with the last layer
  // Forward order is that of falling offsets: a group needs all ranges down to that of its last parameter.
  needed_.assign(std::size_t(depth) + 2, 0);
  int group = -1;
  for (const Param* p : params) {
    group = p->block >= 0 ? p->block : group >= 0 ? depth : -1;
    std::size_t& needed = needed_[std::size_t(group + 1)];
    for (std::size_t i = 0; i < ranges_.size(); ++i)
      if (!p->frozen && p->offset < ranges_[i].end && p->offset + p->size() > ranges_[i].begin)
        needed = std::max(needed, i + 1);
  }
  needed_.back() = ranges_.size();  // a recorded step ends when all of its streams have come together
  for (std::size_t i = 0; i < ranges_.size(); ++i) there_.push_back(runtime(arena.device).create_event());
  waited_ = ranges_.size();
  if (!arena_.work) return;
  arena_.own_master = Tensor::zeros({division_.size}, arena_.master.dtype(), arena_.device);
  division_.take(arena_.master, arena_.own_master);
  runtime(arena_.device).synchronize({});
  point_at({});
}

DividedWeights::~DividedWeights() {
  for (const Event event : there_) runtime(arena_.device).destroy_event(event);
}

void DividedWeights::point_at(const Tensor& master) {
  arena_.master = master;
  for (Param* p : params_) p->master = master ? master.slice(p->offset, p->size()).reshape(p->shape) : Tensor{};
}

void DividedWeights::gather_behind(Stream main) {
  const Stream side = side_.fork(main);
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    division_.gather(read(), ranges_[i], side);
    runtime(arena_.device).record(there_[i], side);
  }
  waited_ = 0;
}

void DividedWeights::wait_for(int block, Stream main) {
  const std::size_t needed = needed_[std::size_t(block + 1)];
  if (needed <= waited_) return;
  runtime(arena_.device).wait(main, there_[needed - 1]);
  waited_ = needed;
}

void DividedWeights::gather() {
  for (const Division::Range& r : ranges_) division_.gather(read(), r, {});
  runtime(arena_.device).synchronize({});
}

void DividedWeights::refresh() {
  if (!arena_.work) return division_.gather(arena_.master, {});  // frozen parameters too
  const auto view = [](const Tensor& t, std::int64_t begin, std::int64_t size) { return t.slice(begin, size).view(); };
  for (const Division::Piece& p : division_.pieces)
    EVERGRAD_CALL(arena_.device, cast,
                  Cast{.from = view(arena_.own_master, p.own, p.size), .to = view(arena_.work, p.begin, p.size)});
  division_.gather(arena_.work, {});
}

DividedWeights::Whole::Whole(DividedWeights& weights, std::span<Param* const> some)
    : weights_(weights), some_(some.begin(), some.end()) {
  DividedWeights& w = weights_;
  if (!w.arena_.work || w.whole_) return;  // it is whole already
  if (some_.empty()) {
    w.whole_ = this;
    w.point_at(w.division_.assemble(w.arena_.own_master));
    w.most_lent_ = std::max(w.most_lent_, w.arena_.master.bytes());
    return;
  }
  std::size_t lent = 0;
  for (Param* p : some_) {
    const auto holds = [&](const Division::Range& r) { return p->offset >= r.begin && p->offset < r.end; };
    auto at = std::find_if(ranges_.begin(), ranges_.end(), [&](const auto& x) { return holds(x.first); });
    if (at == ranges_.end()) {
      const Division::Range r = *std::find_if(w.division_.ranges.begin(), w.division_.ranges.end(), holds);
      const Tensor t = Tensor::zeros({r.end - r.begin}, w.arena_.own_master.dtype(), w.arena_.device);
      w.copy_own(r, t, true);
      w.division_.ranks->all_gather(t.data(), t.size(), t.dtype(), {});
      lent += t.bytes();
      at = ranges_.insert(ranges_.end(), {r, t});
    }
    p->master = at->second.slice(p->offset - at->first.begin, p->size()).reshape(p->shape);
  }
  w.most_lent_ = std::max(w.most_lent_, lent);
}

DividedWeights::Whole::~Whole() {
  DividedWeights& w = weights_;
  if (w.whole_ != this && ranges_.empty()) return;
  try {
    if (w.whole_ == this) w.division_.take(w.arena_.master, w.arena_.own_master);
    for (const auto& [range, t] : ranges_) w.copy_own(range, t, false);
    runtime(w.arena_.device).synchronize({});
  } catch (const Error&) {
    // The same fault shows at the next wait.
  }
  if (w.whole_ == this) w.whole_ = nullptr, w.point_at({});
  if (!ranges_.empty())
    for (Param* p : some_) p->master = {};
}

/// This rank's piece of a range, between own_master and a tensor of that range.
void DividedWeights::copy_own(const Division::Range& r, const Tensor& t, bool out) const {
  const Division::Piece own = division_.own(r.begin, r.end);
  if (own.size == 0) return;
  const Tensor kept = arena_.own_master.slice(own.own, own.size), there = t.slice(own.begin - r.begin, own.size);
  runtime(arena_.device).copy_within((out ? there : kept).data(), (out ? kept : there).data(), kept.bytes(), {});
}

void check_divides(const MethodSpec& spec) {
  static const std::set<std::string> kKnown{"sgd", "adam", "adamw", "arrow", "norm-control"};
  check(kKnown.contains(spec.name) && spec.with.empty(), Kind::usage, [&] {
    return cat("--zero 1 divides the state of sgd, adam, adamw, arrow and norm-control, each without interventions; ",
               to_text(spec), " looks at whole matrices: use --zero 0");
  });
}

}  // namespace eg
