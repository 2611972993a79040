// optim/ema.cpp - see ema.h.
#include "optim/ema.h"

#include "optim/arena_pieces.h"

namespace eg {

Ema::Ema(ParamArena& arena, double decay, std::optional<Division> division)
    : arena_(arena),
      decay_(decay),
      division_(std::move(division)),
      average_(Tensor::zeros({division_ ? division_->size : arena.size}, arena.master.dtype(), arena.device)) {
  check(decay > 0.0 && decay < 1.0, Kind::usage,
        [&] { return cat("the decay of the moving average must lie between 0 and 1, got ", decay); });
  rebase();
}

void Ema::update(const StepContext& ctx) {
  for (const ArenaPiece& piece : arena_pieces({{}, &arena_, 0, division_ ? &*division_ : nullptr}, {}))
    EVERGRAD_CALL(arena_.device, ema_update,
                  EmaUpdate{.average = piece.state(average_),
                            .weight = piece.of(arena_.master),
                            .decay = decay_,
                            .step = ctx.device_step},
                  ctx.stream);
}

void Ema::rebase() { take(arena_.master); }

void Ema::take(const Tensor& weights) { division_ ? division_->take(weights, average_) : average_.copy_from(weights); }

Tensor& Ema::average() {
  if (!division_) return average_;
  return whole_ = division_->assemble(average_);
}

void Ema::restored() {
  if (whole_) take(whole_);
  whole_ = {};
}

std::unique_ptr<Ema::Applied> Ema::apply() {
  auto applied = std::make_unique<Applied>(arena_, average());
  saved();
  return applied;
}

Ema::Applied::Applied(ParamArena& arena, const Tensor& average) : arena_(arena), trained_(arena.master.clone()) {
  arena_.master.copy_from(average);
  arena_.refresh_work();
}

Ema::Applied::~Applied() {
  arena_.master.copy_from(trained_);
  arena_.refresh_work();
}

}  // namespace eg
