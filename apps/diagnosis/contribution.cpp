// apps/diagnosis/contribution.cpp - see contribution.h.
#include "apps/diagnosis/contribution.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"

namespace eg {
namespace {

constexpr std::int64_t kMostImages = 64;

/// Adds the sizes of t's entries to the sum of their column.
void add_sizes(const Tensor& t, std::vector<double>& columns) {
  const std::vector<double> values = t.to_host();
  const auto width = std::size_t(t.cols());
  columns.resize(width, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) columns[i % width] += std::abs(values[i]);
}

/// Multiplies every column's sum by the mean size of that column of the matrix that reads it, and divides by `rows`.
void through(const std::vector<double>& master, const Param& reader, double rows, std::vector<double>& columns) {
  const std::int64_t outputs = reader.shape[0], inputs = reader.shape[1];
  for (std::int64_t i = 0; i < inputs; ++i) {
    double size = 0.0;
    for (std::int64_t k = 0; k < outputs; ++k) size += std::abs(master[std::size_t(reader.offset + k * inputs + i)]);
    columns[std::size_t(i)] *= size / double(outputs) / rows;
  }
}

}  // namespace

Contribution measure_contribution(Trainer& trainer, Loader& images) {
  Vit& model = trainer.model();
  const VitConfig& config = model.config;
  const auto depth = std::size_t(config.depth);
  std::vector<std::vector<double>> units(depth), channels(depth);
  double rows = 0.0;
  VitProbe probe;
  probe.hidden = [&](int block, const Tensor& z) {
    const Tensor h = config.activation == Activation::crelu ? crelu(z) : gelu(z, config.gelu);
    add_sizes(h, units[std::size_t(block)]);
    if (block == 0) rows += double(z.rows());
  };
  probe.mixed = [&](int block, const Tensor& mixed) {
    add_sizes(mixed, channels[std::size_t(block)]);
    return mixed;
  };
  for (std::int64_t seen = 0; seen < kMostImages;) {
    const Batch* batch = images.next();
    if (batch == nullptr) break;
    VitContext c = trainer.context(false);
    c.probe = &probe;
    forward(model, inputs_of(*batch, {}, config.classes, trainer.device()).images, c);
    seen += batch->count;
  }
  check(rows > 0.0, Kind::usage, [] { return std::string("the contribution of units on no image; raise --images"); });
  const std::vector<double> master = trainer.arena().master.to_host();
  Contribution found;
  for (std::size_t b = 0; b < depth; ++b) {
    through(master, model.blocks[b].mlp.fc2.weight, rows, units[b]);
    through(master, model.blocks[b].attn.proj.weight, rows, channels[b]);
    found.units.push_back(std::move(units[b]));
    const std::size_t width = channels[b].size() / std::size_t(config.heads);
    std::vector<double>& heads = found.heads.emplace_back();
    for (std::size_t h = 0; h < std::size_t(config.heads); ++h) {
      double sum = 0.0;
      for (std::size_t c = 0; c < width; ++c) sum += channels[b][h * width + c];
      heads.push_back(sum / double(width));
    }
  }
  return found;
}

}  // namespace eg
