// tests/apps/test_weights.cpp - weights of timm and Hugging Face: what they compute here, and what is made of them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "apps/weights/check_case.h"
#include "apps/weights/resample.h"
#include "autograd/functions.h"
#include "tests/apps/weights_files.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}
bool same_bits(const NamedTensors& a, const NamedTensors& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const auto& item) {
           const auto at = b.find(item.first);
           return at != b.end() && same_bits(item.second, at->second);
         });
}

Tensor images_of(const std::string& name) { return SafetensorsFile::open(golden(name)).load("images", kCpu); }

std::vector<double> logits_of(const ModelWeights& w, const Tensor& images) {
  Vit model = make_vit(w.config);
  const std::vector<Param*> params = parameters(model);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  load_weights(w, params);
  return forward(model, images, {}).to_host();
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  return std::sqrt(sum / norm);
}

}  // namespace

TEST_CASE("weights: logits and all gradients are those of timm and Hugging Face") {
  for (const std::string name : kGolden) {
    CAPTURE(name);
    const CaseErrors e = check_case(read_golden(name), golden(name));
    CHECK(e.logits < 1e-5);
    CAPTURE(e.worst);
    CHECK(e.gradient < 1e-5);  // of each layer's norm
    CHECK(e.gradients >= 20);
  }
}

TEST_CASE("weights: the network is read off names and shapes, and what they leave open is said") {
  std::vector<std::string> notes;
  const VitConfig a = read_golden("timm_registers", &notes).config;
  CHECK((a.image_size == 16 && a.patch == 4 && a.channels == 3 && a.dim == 32 && a.depth == 2 && a.classes == 10));
  CHECK(
      (a.registers == 3 && a.layer_scale > 0.0 && a.class_token && !a.pools_mean() && !a.qk_norm && a.hidden() == 64));
  CHECK(a.eps == 1e-6);
  const VitConfig b = read_golden("timm_qk_norm_mean").config;
  CHECK((b.qk_norm && b.heads == 2 && !b.class_token && b.pools_mean() && !b.norm_first && b.registers == 0));
  const VitConfig c = read_golden("hugging_face_vit").config;
  CHECK((c.depth == 1 && c.class_token && c.hidden() == 64 && c.eps == 1e-12));
  CHECK(contains(notes.front(), "left out, as asked"));
  CHECK(contains(
      error_text(
          Kind::usage,
          [] {
            read_weights(golden("timm_registers"), {.drop = {"images", "labels", "logits*", "gradient/*"}}, nullptr);
          }),
      "give --heads"));
  CHECK(contains(error_text(Kind::usage, [] { read_weights(golden("timm_registers"), {.drop = {"image"}}, nullptr); }),
                 "--drop image fits no tensor"));
}

TEST_CASE("weights: positions and patch kernels are resampled as timm does it") {
  const SafetensorsFile file = SafetensorsFile::open(golden("timm_resampled"));
  const auto close = [](const std::vector<double>& ours, const std::vector<double>& theirs) {
    REQUIRE(ours.size() == theirs.size());
    double largest = 0.0, worst = 0.0;
    for (std::size_t i = 0; i < ours.size(); ++i)
      largest = std::max(largest, std::abs(theirs[i])), worst = std::max(worst, std::abs(ours[i] - theirs[i]));
    CHECK(worst <= 1e-5 * largest);  // timm works in fp32
  };
  const std::vector<double> positions = file.load("positions", kCpu).to_host();
  const std::vector<double> grid(positions.begin() + 2 * 8, positions.end());
  for (const int side : {2, 4, 5, 7, 13}) {
    CAPTURE(side);
    std::vector<double> theirs = file.load(cat("positions/", side), kCpu).to_host();
    theirs.erase(theirs.begin(), theirs.begin() + 2 * 8);
    close(resample_positions(grid, 6, side, 8), theirs);
  }
  const std::vector<double> kernels = file.load("kernels", kCpu).to_host();
  for (const int side : {3, 4, 8, 12}) {
    CAPTURE(side);
    close(resample_kernels(kernels, 6, side, 12), file.load(cat("kernels/", side), kCpu).to_host());
  }
}

TEST_CASE("weights: a cubic matrix keeps constants, and straight lines away from the border") {
  for (const int from : {1, 2, 7, 14})
    for (const int to : {1, 3, 7, 29}) {
      const std::vector<double> m = cubic_matrix(from, to);
      for (int i = 0; i < to; ++i) {
        double sum = 0.0, line = 0.0;
        for (int k = 0; k < from; ++k) sum += m[std::size_t(i * from + k)], line += k * m[std::size_t(i * from + k)];
        CHECK(std::abs(sum - 1.0) < 1e-12);
        const double at = (i + 0.5) * from / to - 0.5;
        if (to > from && at >= 2.0 && at <= from - 3.0) CHECK(std::abs(line - at) < 1e-12);
      }
    }
}

TEST_CASE("weights: in and out again is the same file, tensor by tensor, bit by bit, under both names") {
  const TemporaryFolder folder;
  for (const std::string name : kGolden) {
    CAPTURE(name);
    const ModelWeights w = read_golden(name);
    write_weights(folder / "own.safetensors", w);
    const ModelWeights again = read_weights(folder / "own.safetensors", {}, nullptr);
    CHECK(same_bits(w.tensors, again.tensors));
    CHECK((again.config.heads == 2 && again.config.eps == w.config.eps && again.config.gelu == w.config.gelu));
    const bool hf = name == "hugging_face_vit";
    hf ? write_hugging_face(folder / "out.safetensors", again) : write_weights(folder / "out.safetensors", again);
    const SafetensorsFile before = SafetensorsFile::open(golden(name)),
                          after = SafetensorsFile::open(folder / "out.safetensors");
    for (const SafetensorsEntry& e : after.entries()) {
      CAPTURE(e.name);
      CHECK(same_bits(after.load(e, kCpu), before.load(e.name, kCpu)));
    }
    CHECK(after.metadata().at("format") == "pt");
    if (!hf) CHECK(error_text(Kind::usage, [&] { write_hugging_face(folder / "x.safetensors", again); }).size() > 20);
  }
  CHECK_FALSE(fs::exists(folder / "x.safetensors"));
}

TEST_CASE("weights: bf16 and f64 files give the values that they hold") {
  const TemporaryFolder folder;
  const ModelWeights w = read_golden("timm_registers");
  for (const DType type : {DType::bf16, DType::f64}) {
    NamedTensors stored;
    for (const auto& [name, t] : w.tensors) stored[name] = Tensor::from(t.to_host(), t.shape(), type, kCpu);
    write_safetensors(folder / "m.safetensors", listed(stored));
    const ModelWeights again = read_weights(folder / "m.safetensors", {.heads = 2}, nullptr);
    for (const auto& [name, t] : again.tensors) {
      CHECK(t.dtype() == (type == DType::f64 ? DType::f64 : DType::f32));
      CHECK(t.to_host() == stored.at(name).to_host());
    }
  }
}

TEST_CASE("weights: what timm may store otherwise is brought into our form, with the same logits") {
  const Tensor images = images_of("timm_registers");
  const ModelWeights w = read_golden("timm_registers");
  const std::vector<double> wanted = logits_of(w, images);
  const TemporaryFolder folder;
  const auto read = [&](const NamedTensors& tensors, const std::string& pool = "") {
    write_safetensors(folder / "m.safetensors", listed(tensors));
    return read_weights(folder / "m.safetensors", {.heads = 2, .pool = pool}, nullptr);
  };
  // Positions for class token and registers too: these tokens minus what is in the positions.
  NamedTensors all = w.tensors;
  std::vector<double> pos(4 * 32, 0.5);
  const std::vector<double> patches = all.at("pos_embed").to_host();
  pos.insert(pos.end(), patches.begin(), patches.end());
  all["pos_embed"] = Tensor::from(pos, {1, 20, 32}, DType::f32, kCpu);
  for (const char* name : {"cls_token", "reg_token"}) {
    std::vector<double> token = all.at(name).to_host();
    for (double& x : token) x -= 0.5;
    all[name] = Tensor::from(token, all.at(name).shape(), DType::f32, kCpu);
  }
  CHECK(distance(logits_of(read(all), images), wanted) < 1e-6);
  // fc_norm behind the choice of the class token.
  all = w.tensors;
  for (const char* what : {"weight", "bias"}) {
    auto node = all.extract(std::string("norm.") + what);
    node.key() = std::string("fc_norm.") + what;
    all.insert(std::move(node));
  }
  CHECK(read(all).config.mean_pool);
  CHECK(logits_of(read(all, "token"), images) == wanted);
  // A class token without a position.
  all = w.tensors, all.erase("reg_token");
  const ModelWeights bare = read(all);
  CHECK(bare.tensors.at("pos_embed").shape() == Shape{1, 17, 32});
  CHECK(bare.config.registers == 0);
  // Mean of the patch tokens behind the norm, and beside a class token.
  const ModelWeights mean = read(w.tensors, "mean");
  CHECK((mean.config.mean_pool && mean.config.norm_first));
  const Tensor theirs = SafetensorsFile::open(golden("timm_registers")).load("logits/mean", kCpu);
  CHECK(distance(logits_of(mean, images), theirs.to_host()) < 1e-5);
}

TEST_CASE("weights: fitted to other inputs and outputs, and nothing else") {
  const ModelWeights w = read_golden("timm_registers");
  VitConfig target = w.config;
  target.channels = 1, target.image_size = 24, target.classes = 7;
  std::vector<std::string> notes;
  const ModelWeights f = fitted(w, target, &notes);
  CHECK(notes.size() == 3);
  CHECK(f.config.classes == 0);
  CHECK(f.tensors.count("head.weight") == 0);
  CHECK(f.tensors.at("pos_embed").shape() == Shape{1, 36, 32});
  CHECK(same_bits(f.tensors.at("cls_token"), w.tensors.at("cls_token")));
  const std::vector<double> kernel = w.tensors.at("patch_embed.proj.weight").to_host(),
                            grey = f.tensors.at("patch_embed.proj.weight").to_host();
  REQUIRE(grey.size() * 3 == kernel.size());
  for (std::size_t i = 0; i < grey.size(); ++i) {
    const std::size_t at = i / 16 * 48 + i % 16;
    CHECK(std::abs(grey[i] - (kernel[at] + kernel[at + 16] + kernel[at + 32])) < 1e-6);
  }
  target = w.config, target.patch = 8, target.image_size = 32;
  CHECK(same_bits(fitted(w, target, nullptr).tensors.at("pos_embed"), w.tensors.at("pos_embed")));
  target = w.config, target.dim = 64;
  CHECK(contains(error_text(Kind::usage, [&] { fitted(w, target, nullptr); }), "--dim is 64"));
  target = w.config, target.channels = 4;
  CHECK(contains(error_text(Kind::usage, [&] { fitted(w, target, nullptr); }), "reads 3 channels"));
}
