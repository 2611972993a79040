// layers/heads.cpp - head policies at task boundaries.
#include "layers/heads.h"

#include "engine/kernels.h"

namespace eg {
namespace {

/// The working copy of one parameter; masters of others may be elsewhere, where ranks divide them.
void refresh(const Param& p, const ParamArena& arena) {
  if (arena.work) EVERGRAD_CALL(arena.device, cast, Cast{.from = p.master.view(), .to = p.value.view()});
}
void refresh_head(const Vit& v, const ParamArena& arena) { refresh(v.head.weight, arena), refresh(v.head.bias, arena); }

}  // namespace

void reset_head(Vit& v, const ParamArena& arena, std::uint64_t seed, std::uint32_t redraw) {
  visit_params(v.head, [&](const Param& p) {
    const std::vector<double> values = ParamArena::draw(p, seed, redraw);
    p.master.copy_from(Tensor::from(values, p.shape, p.master.dtype(), arena.device));
  });
  refresh_head(v, arena);
}

void zero_head(Vit& v, const ParamArena& arena) {
  visit_params(v.head, [](const Param& p) { p.master.set_zero(); });
  refresh_head(v, arena);
}

Tensor class_mask(std::span<const std::int64_t> allowed, std::int64_t classes, Device device) {
  check(!allowed.empty(), Kind::usage,
        [] { return std::string("class mask: no class is allowed; list at least one"); });
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(std::max<std::int64_t>(classes, 0)), 0);
  for (const std::int64_t k : allowed) {
    check(k >= 0 && k < classes, Kind::usage,
          [&] { return cat("class mask: class ", k, " does not exist, the head has ", classes, " classes"); });
    mask[std::size_t(k)] = 1;
  }
  return Tensor::from(mask, {classes}, device);
}

void HeadBank::add(std::int64_t task, const Vit& v) {
  // Where ranks divide masters these are fp32, and not here.
  const auto like = [](const Param& p) {
    return Tensor::zeros(p.shape, p.master ? p.master.dtype() : DType::f32, kCpu);
  };
  heads_.insert_or_assign(task, Stored{like(v.head.weight), like(v.head.bias)});
}

void HeadBank::switch_head(Vit& v, const ParamArena& arena, std::int64_t from, std::int64_t to, std::uint64_t seed) {
  check(to >= 0, Kind::usage, [&] { return cat("a head belongs to a task from 0, got ", to); });
  if (from >= 0) {
    add(from, v);
    heads_.at(from).weight.copy_from(v.head.weight.master);
    heads_.at(from).bias.copy_from(v.head.bias.master);
  }
  if (!has(to)) {
    reset_head(v, arena, seed, std::uint32_t(to) + 1);
    return;
  }
  const Stored& stored = heads_.at(to);
  check(stored.weight.shape() == v.head.weight.shape, Kind::shape, [&] {
    return cat("the head of task ", to, " is ", stored.weight, " but the model's is ", v.head.weight.shape);
  });
  v.head.weight.master.copy_from(stored.weight);
  v.head.bias.master.copy_from(stored.bias);
  refresh_head(v, arena);
}

HeadBank::Lent::Lent(const HeadBank& bank, std::int64_t task, Vit& v, const ParamArena& arena) : v_(v), arena_(arena) {
  const auto found = bank.heads_.find(task);
  if (found == bank.heads_.end()) return;
  weight_ = v.head.weight.master.clone(), bias_ = v.head.bias.master.clone();
  v.head.weight.master.copy_from(found->second.weight);
  v.head.bias.master.copy_from(found->second.bias);
  refresh_head(v, arena);
}

HeadBank::Lent::~Lent() {
  if (!weight_) return;
  v_.head.weight.master.copy_from(weight_);
  v_.head.bias.master.copy_from(bias_);
  refresh_head(v_, arena_);
}

std::size_t HeadBank::bytes() const {
  std::size_t n = 0;
  for (const auto& [task, head] : heads_) n += head.weight.bytes() + head.bias.bytes();
  return n;
}

void HeadBank::visit_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  for (auto& [task, head] : heads_) {
    visit(cat("head.", task, ".weight"), head.weight);
    visit(cat("head.", task, ".bias"), head.bias);
  }
}

}  // namespace eg
