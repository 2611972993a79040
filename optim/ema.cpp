// optim/ema.cpp - see ema.h.
#include "optim/ema.h"

namespace eg {

Ema::Ema(ParamArena& arena, double decay) : arena_(arena), decay_(decay), average_(arena.master.clone()) {
  check(decay > 0.0 && decay < 1.0, Kind::usage,
        [&] { return cat("the decay of the moving average must lie between 0 and 1, got ", decay); });
}

void Ema::update(const StepContext& ctx) {
  EVERGRAD_CALL(
      arena_.device, ema_update,
      EmaUpdate{.average = average_.view(), .weight = arena_.master.view(), .decay = decay_, .step = ctx.device_step},
      ctx.stream);
}

void Ema::rebase() { average_.copy_from(arena_.master); }

Ema::Applied::Applied(ParamArena& arena, const Tensor& average) : arena_(arena), trained_(arena.master.clone()) {
  arena_.master.copy_from(average);
  arena_.refresh_work();
}

Ema::Applied::~Applied() {
  arena_.master.copy_from(trained_);
  arena_.refresh_work();
}

}  // namespace eg
