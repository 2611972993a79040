// tests/layers/test_vit.cpp - properties of the forward pass that hold whatever the weights are.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "layers/patch_embed.h"
#include "model.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;

namespace {

using Values = std::vector<double>;

Values logits(Model& m, const Tensor& images, const VitContext& c = {}) { return forward(m.vit, images, c).to_host(); }

/// The same images with their patches in another order: patch n of the result is patch order[n] of the original.
Tensor reordered(const VitConfig& c, const Tensor& images, const std::vector<std::int64_t>& order) {
  const Values from = images.to_host();
  std::vector<std::uint8_t> to(from.size());
  const std::int64_t across = c.image_size / c.patch;
  const auto at = [&](std::int64_t plane, std::int64_t n, std::int64_t i, std::int64_t j) {
    return std::size_t((plane * c.image_size + n / across * c.patch + i) * c.image_size + n % across * c.patch + j);
  };
  for (std::int64_t plane = 0; plane < images.dim(0) * images.dim(1); ++plane)
    for (std::int64_t n = 0; n < c.patches(); ++n)
      for (std::int64_t i = 0; i < c.patch; ++i)
        for (std::int64_t j = 0; j < c.patch; ++j)
          to[at(plane, n, i, j)] = std::uint8_t(from[at(plane, order[std::size_t(n)], i, j)]);
  return Tensor::from(to, images.shape(), images.device());
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "";
}

VitConfig nine_patches() {
  VitConfig c = small_config();
  c.image_size = 12;
  return c;
}

}  // namespace

TEST_CASE("vit: without positions the order of the patches does not matter, with positions it does") {
  const std::vector<std::int64_t> order{4, 0, 8, 2, 6, 1, 7, 3, 5};
  for (const bool class_token : {true, false})
    for (const int registers : {0, 2}) {
      VitConfig c = nine_patches();
      c.class_token = class_token, c.registers = registers;
      CAPTURE(class_token);
      CAPTURE(registers);
      Model m(c, kReference);
      m.spread(3);
      const Tensor images = random_images(c, 2, kReference), moved = reordered(c, images, order);
      CHECK(relative_error(logits(m, moved), logits(m, images)) > 1e-3);
      // The row of the class token may stay: it belongs to no patch.
      Param& pos = m.param("pos_embed");
      Values rows = pos.master.to_host();
      const std::int64_t first = class_token && registers == 0 ? c.dim : 0;
      std::fill(rows.begin() + first, rows.end(), 0.0);
      pos.master.copy_from(Tensor::from(rows, pos.shape, DType::f64, kReference));
      CHECK(relative_error(logits(m, moved), logits(m, images)) < kSameInDouble);
    }
}

TEST_CASE("vit: images of a batch do not see each other") {
  for (const DType activation : {DType::f32, DType::bf16}) {
    Model m(nine_patches(), kCpu, 1, activation);
    m.spread(3);
    const Tensor images = random_images(m.vit.config, 5, kCpu);
    const Values together = logits(m, images);
    for (std::int64_t b = 0; b < 5; ++b) {
      const Values alone = logits(m, images.slice(b, 1));
      const Values same(together.begin() + b * 5, together.begin() + (b + 1) * 5);
      CHECK(alone == same);  // rows of a product are computed alike, whatever stands beside them
    }
  }
}

TEST_CASE("vit: computing only the class token behind the last mixing changes neither logits nor gradients") {
  VitConfig wide = nine_patches();
  wide.layer_scale = 0.3, wide.qk_norm = true, wide.narrow_last = false;
  VitConfig narrow = wide;
  narrow.narrow_last = true;
  Model a(wide, kReference), b(narrow, kReference);
  a.spread(3), b.spread(3);
  const Tensor images = random_images(wide, 3, kReference), labels = some_labels(wide, 3, kReference);
  CHECK(std::abs(run_step(a, images, labels) - run_step(b, images, labels)) < kSameInDouble);
  const auto wanted = gradients(a), got = gradients(b);
  for (const auto& gradient : wanted) {
    const auto& name = gradient.first;
    const Values& values = gradient.second;
    CAPTURE(name);
    double worst = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) worst = std::max(worst, std::abs(values[i] - got.at(name)[i]));
    CHECK(worst <= kSameInDouble);
  }
}

TEST_CASE("vit: recomputing blocks in backward gives the same bits as keeping them") {
  StepRecord step;
  step.seed = 3, step.step = 8;
  for (const DType activation : {DType::f32, DType::bf16}) {
    VitConfig keep = nine_patches();
    keep.drop_path = 0.5, keep.layer_scale = 0.3;
    VitConfig again = keep;
    again.recompute = true;
    Model a(keep, kCpu, 1, activation), b(again, kCpu, 1, activation);
    a.spread(3), b.spread(3);
    const VitContext context{.training = true, .step = &step};
    const Tensor images = random_images(keep, 3, kCpu), labels = some_labels(keep, 3, kCpu);
    const double loss = run_step(a, images, labels, context), second = run_step(b, images, labels, context);
    // A recomputed block hands on its stream with the branch joined to it. The norm that follows would have rounded the
    // same sum in the same way, so not a bit may change.
    CHECK(loss == second);
    CHECK(gradients(a) == gradients(b));
  }
}

TEST_CASE("vit: a probe sees every block, token and hidden unit, and changes nothing") {
  Model m(nine_patches(), kCpu);
  m.spread(3);
  const Tensor images = random_images(m.vit.config, 2, kCpu);
  const Values plain = logits(m, images), features = forward_features(m.vit, images, {}).to_host();
  std::vector<int> tokens_of, hidden_of;
  Values seen;
  VitProbe probe;
  probe.tokens = [&](int block, const Tensor& t) {
    CHECK(t.shape() == Shape{2, 10, 12});
    CHECK(t.tape() == nullptr);
    tokens_of.push_back(block);
  };
  probe.hidden = [&](int block, const Tensor& z) {
    CHECK(z.shape() == Shape{2, 10, 48});
    hidden_of.push_back(block);
  };
  probe.features = [&](const Tensor& f) { seen = f.to_host(); };
  const Values probed = logits(m, images, {.probe = &probe});
  CHECK(tokens_of == std::vector<int>{0, 1, 2});
  CHECK(hidden_of == std::vector<int>{0, 1, 2});
  CHECK(relative_error(seen, features) < kGradientAgreement);
  CHECK(relative_error(probed, plain) < kGradientAgreement);
}

TEST_CASE("vit: frozen parameters get no gradient, and the others the same as before") {
  Model m(small_config(), kCpu), frozen(small_config(), kCpu);
  m.spread(3), frozen.spread(3);
  const Tensor images = random_images(m.vit.config, 3, kCpu), labels = some_labels(m.vit.config, 3, kCpu);
  for (Param* p : frozen.params) p->frozen = p->block >= 0 && p->block < 2;
  run_step(m, images, labels), run_step(frozen, images, labels);
  const auto all = gradients(m), rest = gradients(frozen);
  for (const Param* p : frozen.params) {
    CAPTURE(p->name);
    if (p->frozen)
      CHECK(norm(rest.at(p->name)) == 0.0);
    else
      CHECK(rest.at(p->name) == all.at(p->name));
  }
}

TEST_CASE("vit: gradients of two halves of a batch add up to those of the whole") {
  Model m(small_config(), kReference);
  m.spread(3);
  const Tensor images = random_images(m.vit.config, 6, kReference), labels = some_labels(m.vit.config, 6, kReference);
  run_step(m, images, labels);
  const auto whole = gradients(m);
  for (const std::int64_t half : {0, 1}) {
    Tape tape;
    const Watched watched(tape, m.vit, half == 1);  // the second adds
    backward(tape,
             cross_entropy(forward(m.vit, images.slice(half * 3, 3), {}), labels.slice(half * 3, 3), {}, {}, 0.0, 6.0));
  }
  for (const auto& gradient : gradients(m)) {
    const auto& name = gradient.first;
    const Values& values = gradient.second;
    CAPTURE(name);
    double worst = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) worst = std::max(worst, std::abs(values[i] - whole.at(name)[i]));
    CHECK(worst <= kSameInDouble);
  }
}

TEST_CASE("vit: registers reach the logits, and only patches have positions beside them") {
  VitConfig c = nine_patches();
  c.registers = 3;
  Model m(c, kReference);
  m.spread(3);
  CHECK(c.tokens() == 9 + 1 + 3);
  CHECK(m.param("pos_embed").shape == Shape{1, 9, 12});
  const Tensor images = random_images(c, 2, kReference);
  const Values before = logits(m, images);
  // The embedding layer alone: rows are class token, registers, then patches with their positions.
  const Values x = forward(m.vit.embed, c, images, {}, {}, {}).to_host();
  const Values cls = m.param("cls_token").master.to_host(), reg = m.param("reg_token").master.to_host();
  for (std::size_t b = 0; b < 2; ++b) {
    const auto row = x.begin() + std::ptrdiff_t(b * 13 * 12);
    CHECK(Values(row, row + 12) == cls);
    CHECK(Values(row + 12, row + 48) == reg);
  }
  Param& token = m.param("reg_token");
  token.master.copy_from(Tensor::from(Values(36, 0.7), token.shape, DType::f64, kReference));
  CHECK(relative_error(logits(m, images), before) > 1e-4);
  // Mean pooling reads patches alone, whatever the number of registers.
  c.class_token = false;
  Model pooled(c, kReference);
  Values features;
  VitProbe probe;
  probe.tokens = [&](int block, const Tensor& t) {
    if (block + 1 < c.depth) return;
    CHECK(t.shape() == Shape{2, 12, 12});
    const Values all = t.to_host();
    Values mean(24, 0.0);
    for (std::size_t b = 0; b < 2; ++b)
      for (std::size_t n = 3; n < 12; ++n)
        for (std::size_t i = 0; i < 12; ++i) mean[b * 12 + i] += all[(b * 12 + n) * 12 + i] / 9.0;
    const Tensor normed = forward(pooled.vit.norm, Tensor::from(mean, {2, 12}, DType::f64, kReference), c.eps);
    features = normed.to_host();
  };
  CHECK(relative_error(forward_features(pooled.vit, images, {.probe = &probe}).to_host(), features) < kSameInDouble);
}

TEST_CASE("vit: sine-cosine positions have unit pairs, grow dissimilar with distance and swap with the axes") {
  constexpr int grid = 7, dim = 32, quarter = dim / 4;
  const Values table = sincos_positions(grid, dim);
  REQUIRE(table.size() == std::size_t(grid * grid * dim));
  const auto at = [&](int row, int column, int k) { return table[std::size_t((row * grid + column) * dim + k)]; };
  const auto product = [&](int r0, int c0, int r1, int c1) {
    double sum = 0.0;
    for (int k = 0; k < dim; ++k) sum += at(r0, c0, k) * at(r1, c1, k);
    return sum;
  };
  for (int row = 0; row < grid; ++row)
    for (int column = 0; column < grid; ++column) {
      CHECK(product(row, column, row, column) == doctest::Approx(dim / 2.0).epsilon(1e-14));
      for (int k = 0; k < quarter; ++k) {
        CHECK(at(row, column, k) == at(column, row, k + 2 * quarter));
        CHECK(at(row, column, k + quarter) == at(column, row, k + 3 * quarter));
        // Products depend on the distance alone: sin a sin b + cos a cos b = cos (a - b).
        CHECK(at(row, column, k) * at(0, 0, k) + at(row, column, k + quarter) * at(0, 0, k + quarter) ==
              doctest::Approx(std::cos(column * std::pow(10000.0, -k / double(quarter)))).epsilon(1e-14));
      }
    }
  CHECK(product(3, 3, 3, 4) > product(3, 3, 3, 5));
  CHECK(product(2, 2, 4, 4) == doctest::Approx(product(1, 2, 3, 4)).epsilon(1e-12));
  CHECK(refusal([] { sincos_positions(4, 6); }).find("got 6") != std::string::npos);
}

TEST_CASE("vit: pixels are normalised by the given mean and deviation, and cropped as told") {
  Model m(small_config(), kReference);
  m.spread(3);
  const VitConfig& c = m.vit.config;
  const Tensor images = random_images(c, 2, kReference);
  const Values mean{0.4, 0.5, 0.6}, deviation{0.2, 0.25, 0.3};
  VitContext context;
  context.mean = Tensor::from(mean, {3}, DType::f64, kReference);
  context.stddev = Tensor::from(deviation, {3}, DType::f64, kReference);
  Values pixels = images.to_host();
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    const std::size_t channel = i / 64 % 3;
    pixels[i] = (pixels[i] / 255.0 - mean[channel]) / deviation[channel];
  }
  const Tensor normalised = Tensor::from(pixels, images.shape(), DType::f64, kReference);
  CHECK(relative_error(logits(m, images, context), logits(m, normalised)) < kSameInDouble);
  // A flip of the crop equals an image that is stored flipped.
  context.crop = Tensor::from(std::vector<std::int32_t>{0, 0, 1, 0, 0, 1}, {2, 3}, kReference);
  const Values straight = images.to_host();
  std::vector<std::uint8_t> flipped(straight.size());
  for (std::size_t i = 0; i < flipped.size(); ++i) flipped[i] = std::uint8_t(straight[i / 8 * 8 + 7 - i % 8]);
  VitContext without = context;
  without.crop = {};
  CHECK(logits(m, images, context) == logits(m, Tensor::from(flipped, images.shape(), kReference), without));
}

TEST_CASE("vit: images that do not fit, missing values and a missing step record are refused") {
  VitConfig c = small_config();
  Vit bare = make_vit(c);
  const Tensor images = random_images(c, 2, kCpu);
  CHECK(refusal([&] { forward(bare, images, {}); }).find("no values") != std::string::npos);
  c.drop_path = 0.2;
  Model m(c, kCpu);
  CHECK(refusal([&] { forward(m.vit, images, {.training = true}); }).find("drop_path 0.2") != std::string::npos);
  CHECK(refusal([&] { forward(m.vit, {}, {}); }).find("[batch,3,8,8]") != std::string::npos);
  VitConfig other = c;
  other.channels = 1;
  CHECK(refusal([&] { forward(m.vit, random_images(other, 2, kCpu), {}); }).find("[2,1,8,8]") != std::string::npos);
  other = c, other.image_size = 16;
  CHECK(refusal([&] { forward(m.vit, random_images(other, 2, kCpu), {}); }).find("[2,3,16,16]") != std::string::npos);
}

TEST_CASE("vit: the line about a model says its arithmetic with two digits, however small it is") {
  VitConfig c = vit_config("vit-ti", 32, 8);
  c.dim = 32, c.depth = 2, c.heads = 2, c.classes = 5;
  // Three times two blocks of 24 S D^2 + 4 S^2 D = 455 k operations (S = 17, D = 32), the last one somewhat less, and the
  // patches' 2 * 16 * 192 * 32 = 197 k.
  CHECK(c.describe().find(" 0.0031 GFLOP per training image") != std::string::npos);
  c.dim = 192, c.depth = 12, c.heads = 3, c.patch = 4;
  CHECK(c.describe().find(cat(" ", std::round(c.train_flops() * 1e-7) / 100.0, " GFLOP")) != std::string::npos);
}

TEST_CASE("vit: with CReLU a unit gives max(z, 0) and max(-z, 0) to the second matrix, at as many parameters") {
  const VitConfig gelu = vit_config("vit-ti", 32, 4);
  VitConfig crelu = gelu;
  crelu.activation = Activation::crelu;
  CHECK(crelu.hidden() == 512);
  CHECK(crelu.hidden_outputs() == 1024);
  CHECK(crelu.forward_flops() == gelu.forward_flops());
  // d h + h + 2 h d + d against d H + H + H d + d with h = 2/3 H: the bias of a third of the units is all that is saved.
  CHECK(gelu.parameter_count() - crelu.parameter_count() == 12 * 256);
  CHECK(crelu.describe().find("CReLU") != std::string::npos);

  VitConfig c = nine_patches();
  c.activation = Activation::crelu, c.depth = 1, c.narrow_last = false;
  Model m(c, kReference);
  m.spread(3);
  CHECK(m.param("blocks.0.mlp.fc1.weight").shape == Shape{32, 12});
  CHECK(m.param("blocks.0.mlp.fc2.weight").shape == Shape{12, 64});
  const Tensor images = random_images(c, 2, kReference);
  VitProbe probe;
  Tensor z;
  probe.hidden = [&](int, const Tensor& t) { z = t; };
  VitContext context;
  context.probe = &probe;
  const Values seen = logits(m, images, context);
  CHECK(seen == logits(m, images));
  REQUIRE(z);
  CHECK(z.shape() == Shape{2, 10, 32});
  // The fused layer and its parts agree with the definition, unit by unit.
  const Block& block = m.vit.blocks[0];
  const Tensor x = Tensor::from(Values(24, 0.25), {2, 12}, DType::f64, kReference);
  const Values up = forward(block.mlp.fc1, x).to_host(), w = block.mlp.fc2.weight.value.to_host();
  const Values bias = block.mlp.fc2.bias.value.to_host(), y = forward(block.mlp, x).to_host();
  for (std::size_t o = 0; o < 12; ++o) {
    double sum = bias[o];
    for (std::size_t f = 0; f < 32; ++f)
      sum += w[o * 64 + f] * std::max(up[f], 0.0) + w[o * 64 + 32 + f] * std::max(-up[f], 0.0);
    CHECK(y[o] == doctest::Approx(sum).epsilon(1e-12));
  }
}
