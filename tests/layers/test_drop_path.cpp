// tests/layers/test_drop_path.cpp - stochastic depth (Huang et al. 2016, arXiv:1603.09382) as the blocks use it.
#include <doctest/doctest.h>

#include <algorithm>

#include "model.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;

namespace {

using Values = std::vector<double>;

VitConfig dropping(double rate) {
  VitConfig c = small_config();
  c.drop_path = rate;
  return c;
}

/// One block, whose branches stand apart: x -> {x + attention branch, branch of the MLP}.
struct OneBlock {
  Model m;
  explicit OneBlock(double rate) : m(dropping(rate), kReference) { m.spread(3); }
  Block& block() { return m.vit.blocks.back(); }
  /// The same token matrix `batch` times.
  Tensor tokens(std::int64_t batch) {
    const Key k = key(6, "test", "tokens");
    Values x(std::size_t(batch * 5 * 12));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = k.normal(i % 60);
    return Tensor::from(x, {batch, 5, 12}, DType::f64, kReference);
  }
};

}  // namespace

TEST_CASE("drop path: rates grow linearly over the blocks, from 0 to the full rate") {
  VitConfig c = dropping(0.3);
  c.depth = 4;
  const Vit v = make_vit(c);
  for (int i = 0; i < 4; ++i) CHECK(v.blocks[std::size_t(i)].drop_path == doctest::Approx(0.1 * i));
  c.depth = 1;
  CHECK(make_vit(c).blocks[0].drop_path == 0.0);
}

TEST_CASE("drop path: off in evaluation, whatever the step record") {
  StepRecord step;
  for (const DType activation : {DType::f32, DType::bf16}) {
    Model with(dropping(0.9), kCpu, 1, activation), without(dropping(0.0), kCpu, 1, activation);
    with.spread(3), without.spread(3);
    const Tensor images = random_images(with.vit.config, 4, kCpu);
    const Values expected = forward(without.vit, images, {}).to_host();
    CHECK(forward(with.vit, images, {.step = &step}).to_host() == expected);
    CHECK(forward(with.vit, images, {}).to_host() == expected);
    CHECK(forward(with.vit, images, {.training = true, .step = &step}).to_host() != expected);
    // At rate 0, training is evaluation.
    CHECK(forward(without.vit, images, {.training = true, .step = &step}).to_host() == expected);
  }
}

TEST_CASE("drop path: a branch is whole or gone for each sample, and its mean is the branch") {
  const double rate = 0.3;
  OneBlock one(rate);
  const std::int64_t batch = 3000;
  const Tensor x = one.tokens(batch);
  StepRecord step;
  step.seed = 5, step.step = 2;
  const ResidualStream off = forward(one.block(), {x, {}}, {});
  const ResidualStream on = forward(one.block(), {x, {}}, {.drop_step = &step});
  // The norm that consumes the attention branch returns the stream with it: x + mask branch / (1 - rate).
  const Values start = x.to_host(), whole = off.x.to_host(), dropped = on.x.to_host();
  const std::size_t size = 60;
  std::int64_t gone = 0;
  Values mean(size, 0.0);
  for (std::size_t b = 0; b < std::size_t(batch); ++b) {
    const bool zero =
        std::equal(start.begin() + std::ptrdiff_t(b * size), start.begin() + std::ptrdiff_t((b + 1) * size),
                   dropped.begin() + std::ptrdiff_t(b * size));
    gone += zero;
    double worst = 0.0;
    for (std::size_t i = 0; i < size; ++i) {
      const double branch = whole[b * size + i] - start[b * size + i];
      const double expected = start[b * size + i] + (zero ? 0.0 : branch / (1.0 - rate));
      worst = std::max(worst, std::abs(dropped[b * size + i] - expected));
      mean[i] += dropped[b * size + i] / double(batch);
    }
    CHECK(worst < kSameInDouble);
  }
  const double n = double(batch);
  CHECK(std::abs(double(gone) / n - rate) < 5.0 * std::sqrt(rate * (1.0 - rate) / n));
  for (std::size_t i = 0; i < size; ++i) {
    const double deviation = std::abs(whole[i] - start[i]) * std::sqrt(rate / (1.0 - rate) / n);
    CHECK(std::abs(mean[i] - whole[i]) < 5.0 * deviation + kSameInDouble);
  }
}

TEST_CASE("drop path: masks belong to sample, step, block and branch, not to the batch") {
  const auto mask = [](const char* name, std::int64_t first, std::int64_t count, std::int64_t step_number,
                       std::uint64_t seed = 5) {
    StepRecord step;
    step.seed = seed, step.step = step_number, step.first_sample = first;
    return drop_mask(kCpu, count, 0.5, name, &step).to_host();
  };
  const Values all = mask("blocks.1.drop_path1", 0, 64, 7);
  Values parts = mask("blocks.1.drop_path1", 0, 23, 7);
  const Values rest = mask("blocks.1.drop_path1", 23, 41, 7);
  parts.insert(parts.end(), rest.begin(), rest.end());
  CHECK(all == parts);
  CHECK(all != mask("blocks.1.drop_path1", 0, 64, 8));
  CHECK(all != mask("blocks.1.drop_path2", 0, 64, 7));
  CHECK(all != mask("blocks.2.drop_path1", 0, 64, 7));
  CHECK(all != mask("blocks.1.drop_path1", 0, 64, 7, 6));
  for (const double m : all) CHECK((m == 0.0 || m == 2.0));
}

TEST_CASE("drop path: a step's gradients are those of the branches that were kept") {
  // With every mask 0 or 1/(1 - rate), a dropped sample's gradient does not reach the branch: train on one sample, find
  // a step in which both branches of the last block are dropped, and its parameters must have no gradient at all.
  VitConfig c = dropping(0.6);
  c.depth = 2;
  Model m(c, kReference);
  m.spread(3);
  const Tensor images = random_images(c, 1, kReference), labels = some_labels(c, 1, kReference);
  int silent = 0, active = 0;
  for (std::int64_t number = 0; number < 30; ++number) {
    StepRecord step;
    step.seed = 5, step.step = number;
    const bool first = drop_mask(kReference, 1, 0.6, "blocks.1.drop_path1", &step).to_host()[0] == 0.0;
    const bool second = drop_mask(kReference, 1, 0.6, "blocks.1.drop_path2", &step).to_host()[0] == 0.0;
    run_step(m, images, labels, {.training = true, .step = &step});
    const auto all = gradients(m);
    CHECK((norm(all.at("blocks.1.attn.qkv.weight")) == 0.0) == first);
    CHECK((norm(all.at("blocks.1.mlp.fc2.weight")) == 0.0) == second);
    CHECK(norm(all.at("blocks.0.attn.qkv.weight")) > 0.0);
    silent += first && second, active += !first && !second;
  }
  CHECK(silent > 0);
  CHECK(active > 0);
}
