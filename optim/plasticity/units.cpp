// optim/plasticity/units.cpp - see units.h.
#include "optim/plasticity/units.h"

namespace eg {

UnitMethod::UnitMethod(const MethodSpec& spec, const Parameters& p) : params_(p) {
  for (std::size_t i = 0; i < p.list.size(); ++i) {
    Param* const fc1 = p.list[i];
    if (fc1->link.fc1_weight != int(i)) continue;
    // A unit begins anew in all three or not at all.
    if (fc1->frozen || p.list[std::size_t(fc1->link.fc1_bias)]->frozen ||
        p.list[std::size_t(fc1->link.fc2_weight)]->frozen)
      continue;
    check(p.list[std::size_t(fc1->link.fc2_weight)]->shape.cols() == fc1->shape.rows(), Kind::usage, [&] {
      return cat(spec.name,
                 ": replaces units that give one number each, but those of this model give two (CReLU); "
                 "leave out crelu, or ",
                 spec.name);
    });
    const Device device = p.arena->device;
    Layer layer;
    layer.units = {fc1, p.list[std::size_t(fc1->link.fc1_bias)], p.list[std::size_t(fc1->link.fc2_weight)],
                   Tensor::zeros({fc1->shape.rows()}, DType::i32, device),
                   fc1->link.fc2_bias < 0 ? nullptr : p.list[std::size_t(fc1->link.fc2_bias)]};
    layer.block = fc1->block;
    layers_.push_back(std::move(layer));
  }
  check(!layers_.empty(), Kind::usage,
        [&] { return cat(spec.name, ": the model has no MLP whose units could be replaced; are they frozen?"); });
  counters_ = Tensor::zeros({std::int64_t(layers_.size()) + 1}, DType::f64, kCpu);
}

void UnitMethod::watch(bool absolute, bool positive, bool value) {
  for (Layer& l : layers_) {
    const auto counter = [&](bool wanted, std::int64_t n) {
      return wanted ? Tensor::zeros({n}, DType::f64, params_.arena->device) : Tensor{};
    };
    l.sums = {counter(absolute, l.size()), counter(positive, l.size()), counter(value, l.size()),
              counter(positive || value, 1)};
    l.units.fc1_weight->sums = l.sums;
  }
}

void UnitMethod::visit_layer(Layer& l, const std::function<void(const std::string&, Tensor&)>& visit) {
  visit("steps", l.units.steps);
  const std::pair<const char*, Tensor*> optional[] = {{"activity", &l.sums.absolute}, {"positive", &l.sums.positive},
                                                      {"value", &l.sums.value},       {"rows", &l.sums.rows},
                                                      {"utility", &l.utility},        {"mean", &l.mean}};
  for (const auto& [name, tensor] : optional)
    if (*tensor) visit(name, *tensor);
}

void UnitMethod::attach(Optimizer& base) {
  base_ = &base;
  std::vector<Units> all;
  for (const Layer& l : layers_) all.push_back(l.units);
  base.count_by_unit(all);
}

void UnitMethod::replace(Layer& l, const std::vector<std::int32_t>& which, StepContext& ctx) {
  if (which.empty()) return;
  const ParamArena& arena = *params_.arena;
  const Device device = arena.device;
  const Param &fc1 = *l.units.fc1_weight, &fc2 = *l.units.fc2_weight;
  std::vector<double> rows;
  for (const std::int32_t unit : which) {
    const std::vector<double> row =
        ParamArena::draw_row(fc1, unit, ctx.host_step->seed, std::uint32_t(ctx.host_step->step));
    rows.insert(rows.end(), row.begin(), row.end());
  }
  const std::int64_t n = std::int64_t(which.size());
  const Tensor units = Tensor::from(which, {n}, device);
  const Tensor drawn = Tensor::from(rows, {n, fc1.shape.cols()}, arena.master.dtype(), device);
  UnitReset reset{.fc1_weight = fc1.offset,
                  .fc1_bias = l.units.fc1_bias->offset,
                  .fc2_weight = fc2.offset,
                  .inputs = fc1.shape.cols(),
                  .hidden = fc1.shape.rows(),
                  .outputs = fc2.shape.rows(),
                  .units = units.view()};
  const auto write = [&](const Tensor& array, const TensorView& values) {
    reset.array = array.view(), reset.rows = values;
    EVERGRAD_CALL(device, unit_reset, reset, ctx.stream);
  };
  write(arena.master, drawn.view());
  if (arena.work) write(arena.work, drawn.view());
  base_->visit_moments([&](Tensor& moments) { write(moments, {}); });
  base_->units_replaced(l.block);

  for (Tensor* counts : {&l.units.steps, &l.utility, &l.mean}) {
    if (!*counts) continue;
    std::vector<double> values = counts->to_host();
    for (const std::int32_t unit : which) values[std::size_t(unit)] = 0.0;
    counts->copy_from(Tensor::from(values, counts->shape(), counts->dtype(), device));
  }
  counters_.data_as<double>()[0] += double(n);
}

void UnitMethod::visit_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  visit("counters", counters_);
  for (Layer& l : layers_)
    visit_layer(l, [&](const std::string& name, Tensor& t) { visit(cat(name, '.', l.block), t); });
}

std::size_t UnitMethod::state_bytes() const {
  std::size_t bytes = 0;
  const_cast<UnitMethod*>(this)->visit_state([&](const std::string&, Tensor& t) { bytes += t.bytes(); });
  return bytes;
}

}  // namespace eg
