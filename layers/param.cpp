// layers/param.cpp - the flat arenas.
#include "layers/param.h"

#include <unordered_set>

#include "engine/kernels.h"
#include "engine/rng.h"
#include "layers/init.h"

namespace eg {
namespace {

constexpr std::int64_t kAlign = 16;  // elements: one cache line of fp32

Tensor slice_for(const Param& p, const Tensor& arena) { return arena.slice(p.offset, p.size()).reshape(p.shape); }

}  // namespace

void ParamArena::build(std::span<Param* const> params, Device on, DType activation, bool narrow_gradients) {
  check(is_float(activation), Kind::dtype, [&] { return cat("parameters cannot be held as ", activation); });
  std::unordered_set<std::string> names;
  for (const Param* p : params)
    check(names.insert(p->name).second, Kind::internal, [&] { return cat("two parameters are called ", p->name); });
  device = on;
  size = 0;
  // Backward finishes the last layer first: it gets the lowest addresses.
  for (std::size_t i = params.size(); i-- > 0;) {
    params[i]->offset = size;
    size += (params[i]->size() + kAlign - 1) / kAlign * kAlign;
  }
  const DType master_type = on.statistic();
  master = Tensor::zeros({size}, master_type, on);
  grad = Tensor::zeros({size}, narrow_gradients ? activation : master_type, on);
  work = activation == master_type ? Tensor{} : Tensor::zeros({size}, activation, on);
  for (Param* p : params) {
    p->master = slice_for(*p, master);
    p->grad = slice_for(*p, grad);
    p->value = work ? slice_for(*p, work) : p->master;
  }
}

std::vector<double> ParamArena::draw(const Param& p, std::uint64_t seed, std::uint32_t redraw) {
  return eg::draw(p.init, p.size(), key(seed, "init", p.name, redraw));
}

std::vector<double> ParamArena::draw_row(const Param& p, std::int64_t row, std::uint64_t seed, std::uint32_t step) {
  return eg::draw(p.init, p.shape.cols(), key(seed, "unit", cat(p.name, '.', row), step));
}

std::vector<double> ParamArena::draw_elements(const Param& p, std::span<const std::int64_t> which, std::uint64_t seed,
                                              std::uint32_t step) {
  return eg::draw(p.init, p.size(), key(seed, "element", p.name, step), which);
}

void ParamArena::initialise(std::span<Param* const> params, std::uint64_t seed) const {
  for (const Param* p : params) p->master.copy_from(Tensor::from(draw(*p, seed), p->shape, p->master.dtype(), device));
  refresh_work();
}

void ParamArena::refresh_work() const {
  if (work) EVERGRAD_CALL(device, cast, Cast{.from = master.view(), .to = work.view()});
}

}  // namespace eg
