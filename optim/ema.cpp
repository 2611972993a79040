// optim/ema.cpp - see ema.h.
#include "optim/ema.h"

namespace eg {

Ema::Ema(ParamArena& arena, double decay, std::optional<Division> division)
    : arena_(arena), decay_(decay), division_(std::move(division)), average_(own(arena.master).clone()) {
  check(decay > 0.0 && decay < 1.0, Kind::usage,
        [&] { return cat("the decay of the moving average must lie between 0 and 1, got ", decay); });
}

void Ema::update(const StepContext& ctx) {
  const Tensor weight = own(arena_.master);
  EVERGRAD_CALL(
      arena_.device, ema_update,
      EmaUpdate{.average = average_.view(), .weight = weight.view(), .decay = decay_, .step = ctx.device_step},
      ctx.stream);
}

void Ema::rebase() { average_.copy_from(own(arena_.master)); }

Tensor& Ema::average() {
  if (!division_) return average_;
  whole_ = Tensor::zeros(arena_.master.shape(), average_.dtype(), arena_.device);
  own(whole_).copy_from(average_);
  division_->gather(whole_, {});
  runtime(arena_.device).synchronize({});
  return whole_;
}

void Ema::restored() {
  if (whole_) average_.copy_from(own(whole_));
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
