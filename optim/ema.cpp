// optim/ema.cpp - see ema.h.
#include "optim/ema.h"

#include <exception>

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

std::unique_ptr<Ema::Applied> Ema::apply() { return std::make_unique<Applied>(*this); }

void Ema::lend(const Tensor& pieces) const {
  const Tensor& read = arena_.work ? arena_.work : arena_.master;
  for (const Division::Piece& p : division_->pieces) {
    const Tensor from = pieces.slice(p.own, p.size), to = read.slice(p.begin, p.size);
    if (arena_.work)
      EVERGRAD_CALL(arena_.device, cast, Cast{.from = from.view(), .to = to.view()});
    else
      to.copy_from(from);
  }
  division_->gather(read, {});
}

Ema::Applied::Applied(const Ema& ema) : ema_(ema), unwinding_(std::uncaught_exceptions()) {
  const ParamArena& arena = ema_.arena_;
  if (ema_.division_) {
    if (!arena.own_master) {
      trained_ = Tensor::zeros({ema_.division_->size}, arena.master_type(), arena.device);
      ema_.division_->take(arena.master, trained_);
    }
    ema_.lend(ema_.average_);
    return;
  }
  const Tensor& read = arena.work ? arena.work : arena.master;
  trained_ = read.clone();
  if (arena.work)
    EVERGRAD_CALL(arena.device, cast, Cast{.from = ema_.average_.view(), .to = read.view()});
  else
    read.copy_from(ema_.average_);
}

Ema::Applied::~Applied() {
  const ParamArena& arena = ema_.arena_;
  if (!ema_.division_)
    (arena.work ? arena.work : arena.master).copy_from(trained_);
  else if (std::uncaught_exceptions() == unwinding_)  // else other ranks may not come here, and the run ends
    ema_.lend(arena.own_master ? arena.own_master : trained_);
}

}  // namespace eg
