// apps/diagnosis/diagnosis.cpp - see diagnosis.h.
#include "apps/diagnosis/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "apps/diagnosis/circuits.h"
#include "apps/diagnosis/similarity.h"
#include "apps/diagnosis/spectrum.h"
#include "engine/parallel.h"

namespace eg {
namespace {

/// Token features are thinned to about this many rows per unit of width: enough for the spectrum, cheap to decompose.
constexpr std::int64_t kRowsPerColumn = 4;
/// Attention maps that are kept for comparison hold at most this many probabilities, whatever the model's size.
constexpr std::int64_t kMostMapValues = std::int64_t(1) << 22;
/// The spectrum of a weight matrix costs 4/3 n^3 operations; above this width it is left to `evergrad diagnose`.
constexpr std::int64_t kWidestMatrix = 512;
constexpr std::size_t kSpectrumPoints = 32;
/// Hidden units are counted on the batches up to this many images: each image brings all its tokens, and their GELUs are
/// the dearest part of a diagnosis.
constexpr std::int64_t kUnitImages = 64;
constexpr std::int64_t kShownMaps = 4;

double norm(std::span<const double> v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}
double ratio(double a, double b) { return b > 0.0 ? a / b : std::numeric_limits<double>::quiet_NaN(); }
double distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

/// At most kSpectrumPoints values at even places, the first and the last included.
std::vector<double> thinned(std::span<const double> values) {
  if (values.size() <= kSpectrumPoints) return {values.begin(), values.end()};
  std::vector<double> some;
  for (std::size_t i = 0; i < kSpectrumPoints; ++i)
    some.push_back(values[i * (values.size() - 1) / (kSpectrumPoints - 1)]);
  return some;
}

std::span<const double> values_of(const std::vector<double>& arena, const ModuleView& m) {
  return std::span(arena).subspan(std::size_t(m.offset()), std::size_t(m.size()));
}

void put(Quantities& q, const std::string& name, int block, int blocks, double value) {
  auto& list = q[name];
  list.resize(std::size_t(blocks), std::numeric_limits<double>::quiet_NaN());
  list[std::size_t(block)] = value;
}

/// Six digits are more than a diagnosis has, and keep a long stream's log small.
std::string number_text(double x) {
  if (!std::isfinite(x)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", x);
  return text;
}
std::string list_text(std::span<const double> values) {
  std::string out = "[";
  for (const double x : values) (out += out.size() > 1 ? "," : "") += number_text(x);
  return out + "]";
}
std::string lists_text(const std::vector<std::vector<double>>& lists) {
  std::string out = "[";
  for (const auto& list : lists) (out += out.size() > 1 ? "," : "") += list_text(list);
  return out + "]";
}
template <class Map, class Text>
void add_object(LogLine& line, const char* key, const Map& map, const Text& text) {
  if (map.empty()) return;
  std::string out = "{";
  for (const auto& [name, value] : map) {
    if (out.size() > 1) out += ',';
    out += json_quote(name);
    out += ':';
    out += text(value);
  }
  line.raw(key, out + "}");
}

}  // namespace

void add_to(LogLine& line, const Diagnosis& d) {
  add_object(line, "blocks", d.blocks, [](const auto& v) { return list_text(v); });
  add_object(line, "heads", d.heads, [](const auto& v) { return list_text(v); });
  add_object(line, "model", d.model, [](const auto& v) { return v.size() == 1 ? number_text(v[0]) : list_text(v); });
  add_object(line, "spectra", d.spectra, [](const auto& v) { return lists_text(v); });
  if (!d.maps.empty()) line.raw("maps", lists_text(d.maps));
}

Probe::Probe(Trainer& trainer, const ProbeOptions& options)
    : trainer_(trainer),
      options_(options),
      modules_(block_modules(trainer.params())),
      measured_(Tensor::zeros({1}, DType::i32, kCpu)) {
  initial_.resize(std::size_t(trainer.arena().size));
  for (const ModuleView& m : modules_) {
    if (m.row > 0) continue;  // the parameter's first rows bring all of it
    const std::vector<double> drawn = trainer.first_values(*m.param);
    std::transform(drawn.begin(), drawn.end(), initial_.begin() + m.param->offset, [](double x) { return float(x); });
  }
  const VitConfig& c = trainer.model().config;
  const std::int64_t n = c.tokens(), one = std::int64_t(c.depth) * c.heads * n * n;
  map_images_ = std::clamp<std::int64_t>(kMostMapValues / std::max<std::int64_t>(1, one), 1,
                                         std::min(options.map_images, options.fixed_images));
  maps_first_ = Tensor::zeros({std::int64_t(c.depth), map_images_ * c.heads * n * n}, DType::f32, kCpu);
  maps_last_ = Tensor::zeros(maps_first_.shape(), DType::f32, kCpu);
  const std::int64_t width = options.fixed_images * c.dim;
  features_first_ = Tensor::zeros({std::int64_t(c.depth), width}, DType::f32, kCpu);
  features_last_ = Tensor::zeros(features_first_.shape(), DType::f32, kCpu);
  if (!options_.gradients) return;
  start_ = Tensor::zeros({trainer.arena().size}, DType::f32, kCpu);
  window_ = GradientWindow(modules_, options_.window);
  first_norms_ = Tensor::zeros({std::int64_t(modules_.size())}, DType::f64, kCpu);
  last_norms_ = Tensor::zeros({std::int64_t(modules_.size())}, DType::f64, kCpu);
}

void Probe::task_begins() {
  if (!options_.gradients) return;
  const auto whole = trainer_.whole();
  start_.copy_from(Tensor::from(trainer_.arena().master.to_host(), start_.shape(), DType::f32, kCpu));
  window_.clear();
  first_norms_.set_zero();
}

void Probe::before_update(std::int64_t step, std::int64_t steps) {
  if (!options_.gradients || step + 1 != steps) return;
  const auto whole = trainer_.whole();
  before_last_ = trainer_.arena().master.to_host();
}

void Probe::after_update(std::int64_t step, std::int64_t steps) {
  const bool first = step < options_.window, last = step + options_.window >= steps;
  if (!options_.gradients || (!first && !last && step + 1 < steps)) return;
  trainer_.gather_gradient();
  if (first) {
    std::vector<double> norms = first_norms_.to_host();
    for (std::size_t i = 0; i < modules_.size(); ++i)
      norms[i] += norm(modules_[i].param->grad.slice(modules_[i].row, modules_[i].rows).to_host()) /
                  double(std::min<std::int64_t>(options_.window, steps));
    first_norms_.copy_from(Tensor::from(norms, first_norms_.shape(), DType::f64, kCpu));
  }
  if (last) window_.push();
  if (step + 1 < steps) return;
  const auto whole = trainer_.whole();
  const std::vector<double> after = trainer_.arena().master.to_host();
  update_ratio_.clear();
  for (const ModuleView& m : modules_)
    update_ratio_.push_back(
        ratio(distance(values_of(after, m), values_of(before_last_, m)), norm(values_of(before_last_, m))));
  before_last_.clear();
}

Diagnosis Probe::measure(Loader& images, Loader& fixed) {
  const auto whole = trainer_.whole();
  trainer_.gather_gradient();
  Diagnosis d;
  measure_gradients(d);  // first: they are the last update's, and nothing below keeps them
  measure_weights(d);
  measure_features(images, d);
  measure_attention(fixed, d);
  measured_.copy_from(Tensor::from(std::vector<std::int32_t>{std::int32_t(measured_.to_host()[0]) + 1}, {1}, kCpu));
  return d;
}

void Probe::measure_gradients(Diagnosis& d) {
  const int blocks = trainer_.model().config.depth;
  std::vector<double> squares(std::size_t(blocks), 0.0);
  for (const Param* p : trainer_.params()) {
    if (p->block < 0) continue;
    const double n = norm(p->grad.to_host());
    squares[std::size_t(p->block)] += n * n;
  }
  for (int b = 0; b < blocks; ++b) put(d.blocks, "gradient.norm", b, blocks, std::sqrt(squares[std::size_t(b)]));
  if (!options_.gradients || window_.filled() == 0) return;
  const std::vector<WindowStatistics> all = window_.statistics();
  const std::vector<double> first = first_norms_.to_host(), last = last_norms_.to_host();
  std::vector<double> now(modules_.size());
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    const ModuleView& m = modules_[i];
    const WindowStatistics& s = all[i];
    const std::string name = "gradient." + m.name() + ".";
    put(d.blocks, name + "norm", m.block, blocks, s.norm);
    put(d.blocks, name + "cosine", m.block, blocks, s.cosine);
    put(d.blocks, name + "effective_rank", m.block, blocks, s.effective_rank);
    put(d.blocks, name + "top_share", m.block, blocks, s.top_share);
    put(d.blocks, name + "diversity", m.block, blocks, s.diversity);
    put(d.blocks, name + "noise_ratio", m.block, blocks, s.noise_ratio);
    if (last[i] > 0.0) put(d.blocks, name + "jump", m.block, blocks, first[i] / last[i]);
    auto& spectra = d.spectra["gradient." + m.name()];
    spectra.resize(std::size_t(blocks));
    spectra[std::size_t(m.block)] = s.spectrum;
    now[i] = s.norm;
  }
  last_norms_.copy_from(Tensor::from(now, last_norms_.shape(), DType::f64, kCpu));
}

void Probe::measure_weights(Diagnosis& d) {
  const int blocks = trainer_.model().config.depth;
  const std::vector<double> master = trainer_.arena().master.to_host();
  const std::vector<double> start = options_.gradients ? start_.to_host() : std::vector<double>{};
  std::vector<std::vector<double>> singular(modules_.size());
  parallel_for(std::int64_t(modules_.size()), 1, [&](std::int64_t i, std::int64_t, std::int64_t) {
    const ModuleView& m = modules_[std::size_t(i)];
    if (options_.every_rank || std::min(m.rows, m.cols) <= kWidestMatrix)
      singular[std::size_t(i)] = singular_values(values_of(master, m), m.rows, m.cols);
  });
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    const ModuleView& m = modules_[i];
    const std::string name = "weight." + m.name() + ".";
    const auto w = values_of(master, m);
    const std::vector<double> initial(initial_.begin() + m.offset(), initial_.begin() + m.offset() + m.size());
    put(d.blocks, name + "norm", m.block, blocks, norm(w));
    put(d.blocks, name + "from_start", m.block, blocks, ratio(distance(w, initial), norm(initial)));
    if (!start.empty())
      put(d.blocks, name + "drift", m.block, blocks,
          ratio(distance(w, values_of(start, m)), norm(values_of(start, m))));
    if (!update_ratio_.empty()) put(d.blocks, name + "update_ratio", m.block, blocks, update_ratio_[i]);
    const std::vector<double>& s = singular[i];
    if (s.empty()) continue;
    put(d.blocks, name + "effective_rank", m.block, blocks, effective_rank(s));
    put(d.blocks, name + "stable_rank", m.block, blocks, stable_rank(s));
    put(d.blocks, name + "numerical_rank", m.block, blocks, numerical_rank(s, m.rows, m.cols));
    put(d.blocks, name + "spectral_norm", m.block, blocks, s[0]);
    auto& spectra = d.spectra["weight." + m.name()];
    spectra.resize(std::size_t(blocks));
    spectra[std::size_t(m.block)] = thinned(s);
  }
  measure_circuits(master, d);
  std::vector<double> norms(std::size_t(blocks), 0.0), all = norms;
  for (const Param* p : trainer_.params()) {
    if (p->block < 0) continue;
    const double n = norm(std::span(master).subspan(std::size_t(p->offset), std::size_t(p->size())));
    all[std::size_t(p->block)] += n * n;
    if (p->module == Module::norm1 || p->module == Module::norm2) norms[std::size_t(p->block)] += n * n;
  }
  for (int b = 0; b < blocks; ++b) {
    put(d.blocks, "weight.norm", b, blocks, std::sqrt(all[std::size_t(b)]));
    put(d.blocks, "weight.norms.norm", b, blocks, std::sqrt(norms[std::size_t(b)]));
  }
}

/// Ranks of every head's two circuits; modules_ holds q, k, v, out, fc1, fc2 of each block in this order.
void Probe::measure_circuits(const std::vector<double>& master, Diagnosis& d) {
  const VitConfig& config = trainer_.model().config;
  if (!options_.every_rank && config.dim > kWidestMatrix) return;
  std::vector<CircuitRanks> ranks(std::size_t(config.depth));
  parallel_for(config.depth, 1, [&](std::int64_t b, std::int64_t, std::int64_t) {
    const auto w = [&](std::size_t module) {
      return values_of(master, modules_[std::size_t(b) * kModuleNames.size() + module]);
    };
    ranks[std::size_t(b)] = head_circuits(w(0), w(1), w(2), w(3), config.dim, config.heads);
  });
  for (int b = 0; b < config.depth; ++b) {
    const auto by_head = [&](const std::string& name, const std::vector<double>& values) {
      put(d.blocks, name, b, config.depth, std::accumulate(values.begin(), values.end(), 0.0) / double(values.size()));
      d.heads[name].insert(d.heads[name].end(), values.begin(), values.end());
    };
    by_head("circuit.qk.effective_rank", ranks[std::size_t(b)].qk);
    by_head("circuit.ov.effective_rank", ranks[std::size_t(b)].ov);
  }
}

void Probe::measure_features(Loader& images, Diagnosis& d) {
  Vit& model = trainer_.model();
  const VitConfig& config = model.config;
  const Device device = trainer_.arena().device;
  const auto depth = std::size_t(config.depth);
  const std::int64_t wanted = kRowsPerColumn * config.dim;
  const std::int64_t stride = std::max<std::int64_t>(1, images.samples() * config.tokens() / wanted);
  std::vector<std::vector<double>> tokens(depth);
  std::vector<double> features;
  std::vector<Tensor> counts(depth);  // by block, [5, hidden] as UnitStatistics adds them up
  std::vector<double> rows(depth, 0.0);
  VitProbe probe;
  probe.tokens = [&](int block, const Tensor& t) {
    const std::vector<double> values = t.to_host();
    auto& kept = tokens[std::size_t(block)];
    for (std::int64_t row = 0; row < t.rows(); row += stride)
      kept.insert(kept.end(), values.begin() + row * config.dim, values.begin() + (row + 1) * config.dim);
  };
  probe.features = [&](const Tensor& f) {
    const std::vector<double> values = f.to_host();
    features.insert(features.end(), values.begin(), values.end());
  };
  std::int64_t samples = 0;
  probe.hidden = [&](int block, const Tensor& z) {
    if (samples >= kUnitImages) return;
    const Tensor flat = z.reshape({z.rows(), z.cols()});
    Tensor& c = counts[std::size_t(block)];
    if (!c) {
      std::vector<double> start(5 * std::size_t(z.cols()), 0.0);
      std::fill(start.begin() + 4 * z.cols(), start.end(), -1e30);  // the running maximum
      c = Tensor::from(start, {5, z.cols()}, DType::f64, device);
    }
    const auto row = [&](int i) { return c.slice(i, 1).reshape({z.cols()}).view(); };
    EVERGRAD_CALL(device, unit_statistics,
                  UnitStatistics{.z = flat.view(),
                                 .positive = row(0),
                                 .alive_magnitude = row(1),
                                 .alive_gradient = row(2),
                                 .sum_abs = row(3),
                                 .max_value = row(4),
                                 .kind = config.gelu});
    rows[std::size_t(block)] += double(flat.dim(0));
  };
  while (const Batch* batch = images.next()) {
    VitContext c = trainer_.context(false);
    c.probe = &probe;
    forward(model, inputs_of(*batch, {}, config.classes, trainer_.device()).images, c);
    samples += batch->count;
  }
  std::vector<std::vector<double>> singular(depth + 1);
  parallel_for(std::int64_t(depth) + 1, 1, [&](std::int64_t i, std::int64_t, std::int64_t) {
    const auto& f = std::size_t(i) < depth ? tokens[std::size_t(i)] : features;
    if (!f.empty()) singular[std::size_t(i)] = singular_values(f, std::int64_t(f.size()) / config.dim, config.dim);
  });
  for (int b = 0; b < config.depth; ++b) {
    const auto& s = singular[std::size_t(b)];
    put(d.blocks, "tokens.effective_rank", b, config.depth, effective_rank(s));
    put(d.blocks, "tokens.stable_rank", b, config.depth, stable_rank(s));
    put(d.blocks, "tokens.energy_rank", b, config.depth, energy_rank(s));
    const auto rows_kept = std::int64_t(tokens[std::size_t(b)].size()) / config.dim;
    put(d.blocks, "tokens.numerical_rank", b, config.depth, numerical_rank(s, rows_kept, config.dim));
    d.spectra["tokens"].push_back(thinned(s));
    const auto unit = UnitShares::of(counts[std::size_t(b)].to_host(), rows[std::size_t(b)]);
    put(d.blocks, "units.positive", b, config.depth, unit.positive);
    if (config.activation ==
        Activation::crelu) {  // one of each pair always passes the gradient; GELU's shares mean nothing
      put(d.blocks, "units.active", b, config.depth, 0.5);
      continue;
    }
    put(d.blocks, "units.magnitude", b, config.depth, unit.magnitude);
    put(d.blocks, "units.active", b, config.depth, unit.gradient);
    put(d.blocks, "units.alive", b, config.depth, unit.alive);
    put(d.blocks, "units.dead", b, config.depth, unit.dead);
    put(d.blocks, "units.dormant", b, config.depth, unit.dormant);
  }
  const auto& s = singular[depth];
  d.model["features.effective_rank"] = {effective_rank(s)};
  d.model["features.stable_rank"] = {stable_rank(s)};
  d.model["features.srank"] = {double(srank(s))};
  d.model["features.numerical_rank"] = {double(numerical_rank(s, samples, config.dim))};
  double squares = 0.0;
  for (const double x : features) squares += x * x;
  d.model["features.norm"] = {std::sqrt(squares / double(std::max<std::int64_t>(1, samples)))};
}

UnitShares UnitShares::of(std::span<const double> counts, double rows) {
  UnitShares s;
  const std::size_t units = counts.size() / 5;
  if (units == 0 || rows == 0.0) return s;
  const auto at = [&](int row, std::size_t unit) { return counts[std::size_t(row) * units + unit]; };
  double total = 0.0;
  for (std::size_t u = 0; u < units; ++u) total += at(3, u);
  const double mean = total / double(units);
  for (std::size_t u = 0; u < units; ++u) {
    s.positive += at(0, u) / rows, s.magnitude += at(1, u) / rows, s.gradient += at(2, u) / rows;
    s.alive += at(0, u) >= 0.01 * rows;
    s.dead += at(4, u) <= 0.01;
    s.dormant += at(3, u) <= 0.025 * (mean + 1e-9 * rows);
  }
  for (double* share : {&s.positive, &s.magnitude, &s.gradient, &s.alive, &s.dead, &s.dormant}) *share /= double(units);
  return s;
}

/// CKA of the features now and those of the reference.
void Probe::compare(const std::string& name, int block, std::span<const double> now, Tensor& reference, Diagnosis& d) {
  const std::vector<double> before = reference.slice(block, 1).to_host();
  put(d.blocks, name, block, trainer_.model().config.depth, cka(now, before, options_.fixed_images));
}

void Probe::measure_attention(Loader& fixed, Diagnosis& d) {
  Vit& model = trainer_.model();
  const VitConfig& config = model.config;
  const int depth = config.depth;
  const std::int64_t n = config.tokens();
  std::vector<std::vector<double>> qkv{static_cast<std::size_t>(depth)}, features{static_cast<std::size_t>(depth)};
  std::int64_t seen = 0;
  VitProbe probe;
  probe.qkv = [&](int block, const Tensor& t) {
    const std::int64_t take = std::clamp<std::int64_t>(map_images_ - seen, 0, t.dim(0));
    if (take == 0) return;
    const std::vector<double> values = t.slice(0, take).to_host();
    qkv[std::size_t(block)].insert(qkv[std::size_t(block)].end(), values.begin(), values.end());
  };
  // What the head reads: the class token's features, or the mean of the prompts or patches.
  const std::int64_t prompts = config.prompt_tokens();
  const std::int64_t first_read = prompts || !config.pools_mean() ? 0 : config.prefix();
  const std::int64_t last_read = prompts ? prompts : config.pools_mean() ? n : 1;
  probe.tokens = [&](int block, const Tensor& t) {
    const std::vector<double> values = t.to_host();
    auto& kept = features[std::size_t(block)];
    const std::int64_t first = first_read, last = last_read;
    for (std::int64_t i = 0; i < t.dim(0); ++i)
      for (std::int64_t c = 0; c < config.dim; ++c) {
        double sum = 0.0;
        for (std::int64_t k = first; k < last; ++k) sum += values[std::size_t((i * n + k) * config.dim + c)];
        kept.push_back(sum / double(last - first));
      }
  };
  while (const Batch* batch = fixed.next()) {
    VitContext c = trainer_.context(false);
    c.probe = &probe;
    forward(model, inputs_of(*batch, {}, config.classes, trainer_.device()).images, c);
    seen += batch->count;
  }
  check(seen == options_.fixed_images && seen >= map_images_, Kind::internal,
        [&] { return cat("the diagnosis was made for ", options_.fixed_images, " fixed images and got ", seen); });
  const bool first = measured_.to_host()[0] == 0.0;
  for (int b = 0; b < depth; ++b) {
    const AttentionMaps maps = attention_maps(qkv[std::size_t(b)], map_images_, n, config.heads);
    const HeadStatistics s = head_statistics(maps, config.prefix());
    const auto by_head = [&](const std::string& name, const std::vector<double>& values) {
      put(d.blocks, name, b, depth, std::accumulate(values.begin(), values.end(), 0.0) / double(values.size()));
      auto& all = d.heads[name];
      all.insert(all.end(), values.begin(), values.end());
    };
    by_head("attention.entropy", s.entropy);
    by_head("attention.distance", s.distance);
    if (config.class_token && !prompts) by_head("attention.class_self", s.class_self);
    by_head("attention.largest_logit", maps.largest_logit);
    put(d.blocks, "attention.head_similarity", b, depth, s.similarity);
    const std::vector<double>& f = features[std::size_t(b)];
    if (!first) {
      by_head("attention.drift_first", attention_drift(maps, maps_first_.slice(b, 1).to_host()));
      by_head("attention.drift_task", attention_drift(maps, maps_last_.slice(b, 1).to_host()));
      if (options_.fixed_images >= 4) {
        compare("tokens.cka_first", b, f, features_first_, d);
        compare("tokens.cka_task", b, f, features_last_, d);
      }
    }
    const auto keep = [&](Tensor& into, std::span<const double> values) {
      into.slice(b, 1).copy_from(Tensor::from(values, {1, into.dim(1)}, DType::f32, kCpu));
    };
    keep(maps_last_, maps.p), keep(features_last_, f);
    if (first) keep(maps_first_, maps.p), keep(features_first_, f);
    // What the tokens that the head reads look at (without a class token: what all look at), mean over heads.
    for (std::int64_t i = 0; i < std::min(map_images_, kShownMaps); ++i) {
      std::vector<double> look(std::size_t(config.patches()), 0.0);
      const std::int64_t rows = config.pools_mean() ? n : last_read;
      for (std::int64_t h = 0; h < config.heads; ++h)
        for (std::int64_t q = 0; q < rows; ++q)
          for (std::int64_t k = 0; k < config.patches(); ++k)
            look[std::size_t(k)] +=
                maps.map(i, h)[std::size_t(q * n + config.prefix() + k)] / double(config.heads * rows);
      d.maps.push_back(std::move(look));
    }
  }
}

std::vector<NamedTensor> Probe::state() {
  std::vector<NamedTensor> all{{"probe.measured", measured_},
                               {"probe.maps_first", maps_first_},
                               {"probe.maps_last", maps_last_},
                               {"probe.features_first", features_first_},
                               {"probe.features_last", features_last_}};
  if (!options_.gradients) return all;
  all.push_back({"probe.start", start_});
  all.push_back({"probe.first_norms", first_norms_});
  all.push_back({"probe.last_norms", last_norms_});
  window_.visit_state([&](const std::string& name, Tensor& t) { all.push_back({"probe.window." + name, t}); });
  return all;
}

}  // namespace eg
