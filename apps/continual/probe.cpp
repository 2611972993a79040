// apps/continual/probe.cpp - see probe.h.
#include "apps/continual/probe.h"

#include <algorithm>
#include <cmath>

#include "apps/continual/spectrum.h"

namespace eg {
namespace {

double norm(const Tensor& t) {
  double sum = 0.0;
  for (const double x : t.to_host()) sum += x * x;
  return sum;
}

/// Token features are thinned to about this many rows per unit of width: enough for the spectrum, cheap to decompose.
constexpr std::int64_t kRowsPerColumn = 4;

}  // namespace

std::vector<BlockProbe> probe_blocks(Trainer& trainer, Loader& images) {
  Vit& model = trainer.model();
  const VitConfig& config = model.config;
  const Device device = trainer.arena().device;
  std::vector<BlockProbe> blocks(static_cast<std::size_t>(config.depth));
  std::vector<std::vector<double>> features(blocks.size());
  const Tensor counts = Tensor::zeros({5, config.hidden()}, DType::f64, device);
  std::vector<double> active(blocks.size(), 0.0), entries(blocks.size(), 0.0);

  VitProbe probe;
  const std::int64_t wanted = kRowsPerColumn * config.dim;
  const std::int64_t stride = std::max<std::int64_t>(1, images.samples() * config.tokens() / wanted);
  probe.tokens = [&](int block, const Tensor& tokens) {
    const std::vector<double> values = tokens.to_host();
    auto& rows = features[std::size_t(block)];
    for (std::int64_t row = 0; row < tokens.rows(); row += stride)
      rows.insert(rows.end(), values.begin() + row * config.dim, values.begin() + (row + 1) * config.dim);
  };
  probe.hidden = [&](int block, const Tensor& z) {
    counts.set_zero();
    const Tensor flat = z.reshape({z.rows(), z.cols()});
    EVERGRAD_CALL(device, unit_statistics,
                  UnitStatistics{.z = flat.view(),
                                 .positive = counts.slice(0, 1).reshape({config.hidden()}).view(),
                                 .alive_magnitude = counts.slice(1, 1).reshape({config.hidden()}).view(),
                                 .alive_gradient = counts.slice(2, 1).reshape({config.hidden()}).view(),
                                 .sum_abs = counts.slice(3, 1).reshape({config.hidden()}).view(),
                                 .max_value = counts.slice(4, 1).reshape({config.hidden()}).view(),
                                 .kind = config.gelu});
    for (const double c : counts.slice(2, 1).to_host()) active[std::size_t(block)] += c;
    entries[std::size_t(block)] += double(z.size());
  };
  while (const Batch* batch = images.next()) {
    VitContext c = trainer.context(false);
    c.probe = &probe;
    forward(model, inputs_of(*batch, {}, model.config.classes, trainer.device()).images, c);
  }
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const std::int64_t rows = std::int64_t(features[b].size()) / config.dim;
    blocks[b].effective_rank = effective_rank(singular_values(features[b], rows, config.dim));
    blocks[b].active_units = entries[b] > 0 ? active[b] / entries[b] : 0.0;
  }
  for (const Param* p : trainer.params())
    if (p->block >= 0) {
      blocks[std::size_t(p->block)].weight_norm += norm(p->master);
      blocks[std::size_t(p->block)].gradient_norm += norm(p->grad);
    }
  for (BlockProbe& b : blocks) b.weight_norm = std::sqrt(b.weight_norm), b.gradient_norm = std::sqrt(b.gradient_norm);
  return blocks;
}

void add_probe(LogLine& line, const Plan& plan, const Pair& pair, Trainer& trainer, const Task& task) {
  SampleSet some = task.test;
  const std::int64_t count = std::min<std::int64_t>(plan.options().probe_images, some.size());
  some.indices.resize(std::size_t(count)), some.labels.resize(std::size_t(count));
  Loader loader(plan.data(), some, task.transform, plan.loader(task, pair.seed, false));
  const std::vector<BlockProbe> blocks = probe_blocks(trainer, loader);
  std::vector<double> rank, active, weight, gradient;
  for (const BlockProbe& b : blocks) {
    rank.push_back(b.effective_rank), active.push_back(b.active_units);
    weight.push_back(b.weight_norm), gradient.push_back(b.gradient_norm);
  }
  line.add("effective_rank", std::span<const double>(rank)).add("active_units", std::span<const double>(active));
  line.add("weight_norm", std::span<const double>(weight)).add("gradient_norm", std::span<const double>(gradient));
}

}  // namespace eg
