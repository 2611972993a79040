// optim/ema.cpp - see ema.h.
#include "optim/ema.h"

#include "optim/arena_pieces.h"

namespace eg {

Ema::Ema(ParamArena& arena, double decay, std::optional<Division> division)
    : arena_(arena),
      decay_(decay),
      division_(std::move(division)),
      average_(Tensor::zeros({division_ ? division_->size : arena.size}, arena.master_type(), arena.device)) {
  check(decay > 0.0 && decay < 1.0, Kind::usage,
        [&] { return cat("the decay of the moving average must lie between 0 and 1, got ", decay); });
  rebase();
}

void Ema::update(const StepContext& ctx) {
  for (const ArenaPiece& piece : arena_pieces({{}, &arena_, 0, division_ ? &*division_ : nullptr}, {}))
    EVERGRAD_CALL(
        arena_.device, ema_update,
        EmaUpdate{
            .average = piece.state(average_), .weight = piece.master(arena_), .decay = decay_, .step = ctx.device_step},
        ctx.stream);
}

void Ema::rebase() {
  if (arena_.own_master || !division_)
    average_.copy_from(division_ ? arena_.own_master : arena_.master);
  else
    division_->take(arena_.master, average_);
}

std::unique_ptr<Ema::Applied> Ema::apply() { return std::make_unique<Applied>(arena_, average()); }

Ema::Applied::Applied(ParamArena& arena, const Tensor& average)
    : read_(arena.work ? arena.work : arena.master), trained_(read_.clone()) {
  if (arena.work)
    EVERGRAD_CALL(arena.device, cast, Cast{.from = average.view(), .to = read_.view()});
  else
    read_.copy_from(average);
}

Ema::Applied::~Applied() { read_.copy_from(trained_); }

}  // namespace eg
