// tests/layers/model.h - what the tests of layers/ share: a model with values, a batch, one step of gradients.
#pragma once
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "autograd/functions.h"
#include "engine/kernels.h"
#include "engine/rng.h"
#include "layers/heads.h"
#include "layers/vit.h"

namespace eg::test {

/// The dtype of activations on a device when no precision is asked for.
inline DType activation_of(Device d) { return d == kReference ? DType::f64 : DType::f32; }

/// A model with its arena. Not movable: the parameters point at each other's places in it.
struct Model {
  Vit vit;
  std::vector<Param*> params;
  ParamArena arena;

  Model(VitConfig c, Device device, std::uint64_t seed = 1, DType activation = DType::f64) {
    c.precision = device == kReference ? DType::f64 : activation == DType::f64 ? DType::f32 : activation;
    vit = make_vit(c);
    params = parameters(vit);
    arena.build(params, device, c.precision);
    arena.initialise(params, seed);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// Initial weights have gradients near zero in places; these do not.
  void spread(std::uint64_t seed) {
    for (Param* p : params) {
      const Key k = key(seed, "test", p->name);
      const double scale = p->shape.rank() > 1 && p->role != Role::embedding ? 1.0 / std::sqrt(double(p->fan_in)) : 0.3;
      std::vector<double> values(std::size_t(p->size()));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = double(float((p->init.rule == Init::Rule::ones ? 1.0 : 0.0) + scale * k.normal(i)));
      p->master.copy_from(Tensor::from(values, p->shape, p->master.dtype(), arena.device));
    }
    arena.refresh_work();
  }
  Param& param(const std::string& name) {
    for (Param* p : params)
      if (p->name == name) return *p;
    fail(Kind::usage, "no parameter " + name);
  }
};

inline Tensor random_images(const VitConfig& c, std::int64_t batch, Device device, std::uint64_t seed = 5) {
  std::vector<std::uint8_t> pixels(std::size_t(batch * c.channels * c.image_size * c.image_size));
  const Key k = key(seed, "test", "images");
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::uint8_t(k.below(i, 256));
  return Tensor::from(pixels, {batch, c.channels, c.image_size, c.image_size}, device);
}
inline Tensor some_labels(const VitConfig& c, std::int64_t batch, Device device) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(batch));
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = std::int32_t(i * 7 % std::size_t(c.classes));
  return Tensor::from(labels, {batch}, device);
}

/// Runs forward and backward; gradients stand in Param::grad. Returns the loss.
inline double run_step(Model& m, const Tensor& images, const Tensor& labels, const VitContext& context = {}) {
  Tape tape;
  const Watched watched(tape, m.vit, false);
  const Tensor loss = cross_entropy(forward(m.vit, images, context), labels, {}, {});
  const double value = loss.to_host()[0];
  backward(tape, loss);
  return value;
}

inline std::map<std::string, std::vector<double>> gradients(const Model& m) {
  std::map<std::string, std::vector<double>> all;
  for (const Param* p : m.params) all[p->name] = p->grad.to_host();
  return all;
}

inline double norm(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}
/// |a - b| / |b|.
inline double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum) / norm(b);
}

/// A model that is small and leaves no vector width even: 5 tokens of width 12.
inline VitConfig small_config() {
  VitConfig c;
  c.image_size = 8, c.patch = 4, c.dim = 12, c.depth = 3, c.heads = 2, c.classes = 5;
  return c;
}

}  // namespace eg::test
