// tests/layers/test_golden.cpp - loss and all gradients of one training step against PyTorch's, for the same weights
// and batch. The files are made by docs/benchmarks/make_golden.py.
//
// A layer is a weight with its bias; its error is |ours - PyTorch's| over the norm of PyTorch's gradient.
// The key third of the qkv bias is left out: adding a constant to every key adds the same number to all logits of a
// row, which softmax ignores, so that gradient is zero in exact arithmetic and rounding noise in practice.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "engine/safetensors.h"
#include "model.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

namespace {

struct Golden {
  SafetensorsFile file;
  VitConfig config;
  double smoothing = 0.0;

  explicit Golden(const fs::path& path) : file(SafetensorsFile::open(path)) {
    const auto number = [&](const char* field) { return std::stod(file.metadata().at(field)); };
    const auto flag = [&](const char* field) { return file.metadata().at(field) == "True"; };
    const auto whole = [&](const char* field) { return int(number(field)); };
    config.image_size = whole("image_size"), config.patch = whole("patch"), config.channels = whole("channels");
    config.dim = whole("dim"), config.depth = whole("depth"), config.heads = whole("heads");
    config.classes = whole("classes"), config.registers = whole("registers");
    config.mlp_ratio = number("mlp_ratio"), config.layer_scale = number("layer_scale"), config.eps = number("eps");
    config.class_token = flag("class_token"), config.qk_norm = flag("qk_norm");
    config.pos = flag("sincos") ? PosEmbed::sincos : PosEmbed::learned;
    config.gelu = file.metadata().at("gelu") == "tanh" ? GeluKind::tanh : GeluKind::erf;
    smoothing = number("smoothing");
  }
  std::vector<double> values(const std::string& name) const { return file.load(name, kCpu).to_host(); }
};

std::vector<fs::path> golden_files() {
  std::vector<fs::path> files;
  const auto add = [&](const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  };
  add(fs::path(EVERGRAD_TEST_FILES) / "layers" / "golden");
  if (const char* more = std::getenv("EVERGRAD_GOLDEN")) add(more);
  std::sort(files.begin(), files.end());
  return files;
}

double step(Model& m, const Golden& g, Device device) {
  const DType stat = device.statistic();
  VitContext context;
  context.training = true;
  context.mean = Tensor::from(g.values("mean"), {g.config.channels}, stat, device);
  context.stddev = Tensor::from(g.values("std"), {g.config.channels}, stat, device);
  Tape tape;
  const Watched watched(tape, m.vit, false);
  const Tensor logits = forward(m.vit, g.file.load("images", device), context);
  const Tensor loss = cross_entropy(logits, g.file.load("labels", device), {}, {}, g.smoothing);
  const double value = loss.to_host()[0];
  backward(tape, loss);
  return value;
}

/// Largest error of a layer, and which.
std::pair<double, std::string> worst_layer(const Model& m, const Golden& g, const std::string& tag) {
  std::map<std::string, std::pair<std::vector<double>, std::vector<double>>> layers;  // ours, theirs
  for (const Param* p : m.params) {
    std::vector<double> ours = p->grad.to_host(), theirs = g.values("gradient" + tag + "/" + p->name);
    REQUIRE(ours.size() == theirs.size());
    if (p->module == Module::qkv && p->shape.rank() == 1) {
      const auto d = std::ptrdiff_t(p->size() / 3);
      for (auto* x : {&ours, &theirs}) x->erase(x->begin() + d, x->begin() + 2 * d);
    }
    auto& [a, b] = layers[p->name.substr(0, p->name.rfind('.'))];
    a.insert(a.end(), ours.begin(), ours.end()), b.insert(b.end(), theirs.begin(), theirs.end());
  }
  std::pair<double, std::string> worst{-1.0, "none"};
  for (const auto& [name, pair] : layers) worst = std::max(worst, {relative_error(pair.first, pair.second), name});
  return worst;
}

void load_weights(Model& m, const Golden& g) {
  std::size_t weights = 0;
  for (const SafetensorsEntry& e : g.file.entries()) weights += e.name.starts_with("weight/");
  REQUIRE(weights == m.params.size());
  for (Param* p : m.params) {
    REQUIRE(g.file.find("weight/" + p->name)->shape == p->shape);
    p->master.copy_from(Tensor::from(g.values("weight/" + p->name), p->shape, p->master.dtype(), m.arena.device));
  }
  m.arena.refresh_work();
}

void check_equal(const Golden& g, Device device, const std::string& tag, double loss_bound, double bound) {
  for (const bool narrow : {true, false}) {
    VitConfig config = g.config;
    config.narrow_last = narrow;
    Model m(config, device);
    load_weights(m, g);
    const double loss = step(m, g, device), expected = g.values("loss" + tag)[0];
    const auto worst = worst_layer(m, g, tag);
    const double error = worst.first;
    const std::string& layer = worst.second;
    CAPTURE(narrow);
    CAPTURE(layer);
    MESSAGE(g.file.source() << ", " << to_string(device) << ": loss " << loss << ", off by "
                            << std::abs(loss - expected) << "; worst layer " << layer << " off by " << error);
    CHECK(std::abs(loss - expected) <= loss_bound * expected);
    CHECK(error < bound);
  }
}

}  // namespace

TEST_CASE("vit: loss and gradients equal PyTorch's in fp32 (cpu)") {
  REQUIRE(golden_files().size() >= 6);
  for (const fs::path& path : golden_files()) {
    CAPTURE(path);
    check_equal(Golden(path), kCpu, "32", kLossAgreement, kGradientAgreement);
  }
}

TEST_CASE("vit: loss and gradients equal PyTorch's in double precision (reference)") {
  for (const fs::path& path : golden_files()) {
    CAPTURE(path);
    const Golden g(path);
    if (g.config.dim > 64) continue;  // plain loops over a real model take minutes
    check_equal(g, kReference, "64", kLossAgreementInDouble, kGradientAgreementInDouble);
  }
}
