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

DividedWeights::Whole::Whole(DividedWeights& weights) : weights_(weights) {
  if (weights_.arena_.work && weights_.whole_++ == 0)
    weights_.point_at(weights_.division_.assemble(weights_.arena_.own_master));
}

DividedWeights::Whole::~Whole() {
  if (!weights_.arena_.work || --weights_.whole_ > 0) return;
  try {
    weights_.division_.take(weights_.arena_.master, weights_.arena_.own_master);
    runtime(weights_.arena_.device).synchronize({});
  } catch (const Error&) {
    // The same fault shows at the next wait.
  }
  weights_.point_at({});
}

void check_divides(const MethodSpec& spec) {
  static const std::set<std::string> kKnown{"sgd", "adam", "adamw", "arrow", "norm-control"};
  check(kKnown.contains(spec.name) && spec.with.empty(), Kind::usage, [&] {
    return cat("--zero 1 divides the state of sgd, adam, adamw, arrow and norm-control, each without interventions; ",
               to_text(spec), " looks at whole matrices: use --zero 0");
  });
}

}  // namespace eg
