// tests/layers/test_prompt.cpp - a pool of prompts in front of a frozen network (methods.md B.13).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/layers/model.h"
#include "tests/tolerance.h"

namespace eg::test {
namespace {

using Values = std::vector<double>;

VitConfig prompted(int pool, int length, int select, bool batchwise = false) {
  VitConfig c = small_config();
  c.prompts = {.pool = pool, .length = length, .select = select, .pull = 1.0, .batchwise = batchwise};
  return c;
}

void set(const Param& p, const Values& values) {
  p.master.copy_from(Tensor::from(values, p.shape, p.master.dtype(), p.master.device()));
}

/// The class token's feature of the same network without prompts: what choices are made by.
Values query_of(Model& m, const Tensor& images) {
  Model bare(small_config(), m.arena.device);
  for (Param* p : bare.params)
    if (p->name != "head.weight" && p->name != "head.bias") p->master.copy_from(m.param(p->name).master);
  return forward_features(bare.vit, images, {}).to_host();
}

struct Pass {
  double term = 0.0, loss = 0.0;  // what the pool adds to the loss; all of it
  std::map<std::string, Values> gradients;
};
Pass pass(Model& m, const Tensor& images, const Tensor& labels, bool training = false, double batch = 0.0) {
  Pass result;
  Tape tape;
  const Watched watched(tape, m.vit, false);
  Tensor added;
  const VitContext c{.training = training, .batch = batch, .prompt_loss = &added};
  const Tensor loss = add(cross_entropy(forward(m.vit, images, c), labels, {}, {}), added);
  result.term = added.to_host()[0], result.loss = loss.to_host()[0];
  backward(tape, loss);
  result.gradients = gradients(m);
  return result;
}

Values unit(Values x) {
  const double length = norm(x);
  for (double& v : x) v /= length;
  return x;
}
double dot(const double* a, const double* b, std::size_t n) {
  double sum = 0.0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

TEST_CASE("prompts: the model has a pool and keys by name, and only they and the head learn; the head begins at zero") {
  Model m(prompted(6, 3, 2), kReference);
  CHECK(m.param("prompt.prompts").shape == Shape{6, 3, 12});
  CHECK(m.param("prompt.keys").shape == Shape{6, 12});
  for (const Param* p : m.params) {
    CAPTURE(p->name);
    CHECK(p->frozen == !(p->name.starts_with("prompt.") || p->name.starts_with("head.")));
  }
  for (const char* name : {"prompt.prompts", "prompt.keys"}) {
    const Values drawn = m.param(name).master.to_host();
    CHECK(*std::max_element(drawn.begin(), drawn.end()) <= 0.01);
    CHECK(*std::min_element(drawn.begin(), drawn.end()) >= -0.01);
    CHECK(norm(drawn) > 0.0);
    CHECK(m.param(name).role == Role::embedding);
  }
  for (const double w : m.param("head.weight").master.to_host()) CHECK(w == 0.0);
  const VitConfig c = m.vit.config;
  CHECK(c.prompt_tokens() == 6);
  CHECK(c.tokens() == small_config().tokens() + 6);
  CHECK(m.param("pos_embed").shape == Shape{1, small_config().tokens(), 12});  // prompts have no position
  CHECK(c.train_flops() > 0.0);
}

TEST_CASE("prompts: logits are those of the sequence [prompts, class token, patches] put together by hand") {
  Model m(prompted(1, 3, 1), kReference);
  m.spread(3);
  const Tensor images = random_images(m.vit.config, 2, kReference);
  Vit& v = m.vit;
  const Tensor own = forward(v.embed, v.config, images, {}, {}, {});
  const std::int64_t n = own.dim(1), c = own.dim(2), length = 3;
  const Values x = own.to_host(), p = v.prompt->prompts.value.to_host();
  Values all;
  for (std::int64_t b = 0; b < 2; ++b) {
    all.insert(all.end(), p.begin(), p.end());
    all.insert(all.end(), x.begin() + b * n * c, x.begin() + (b + 1) * n * c);
  }
  ResidualStream s{Tensor::from(all, {2, length + n, c}, DType::f64, kReference), {}};
  for (const Block& block : v.blocks) s = forward(block, s, {});
  const Tensor normed = forward(v.norm, joined(s), v.config.eps);
  const Tensor expected = forward(v.head, pool_tokens(normed, 0, length));
  CHECK(relative_error(forward(v, images, {}).to_host(), expected.to_host()) < kSameInDouble);
}

TEST_CASE("prompts: with keys e1, e2 and queries that are e1 the term is -lambda, and the first prompt is chosen") {
  // The final norm's gain is zero and its offset e1: every feature is e1.
  for (const Device device : {kReference, kCpu})
    for (const double pull : {1.0, 0.25})
      for (const bool batchwise : {false, true}) {
        VitConfig c = prompted(2, 1, 1, batchwise);
        c.prompts.pull = pull;
        Model m(c, device);
        m.spread(4);
        Values e1(12, 0.0), keys(24, 0.0);
        e1[0] = 1.0, keys[12 + 1] = 1.0;
        set(m.param("norm.weight"), Values(12, 0.0)), set(m.param("norm.bias"), e1);
        keys[0] = 5.0;  // keys are normalised: their length does not count
        set(m.param("prompt.keys"), keys);
        const Tensor images = random_images(c, 3, device), labels = some_labels(c, 3, device);
        const Pass p = pass(m, images, labels, true);
        CHECK(std::abs(p.term + pull) <= (device == kReference ? kSameInDouble : sum_error(14, pull)));
        // The cosine has its maximum: no gradient but rounding (the key is 5 long, which divides it once more).
        for (const double g : p.gradients.at("prompt.keys"))
          CHECK(std::abs(g) <= (device == kReference ? kSameInDouble : sum_error(7, pull)));
        // The second prompt was not chosen, by anyone.
        const Values g = p.gradients.at("prompt.prompts");
        for (std::size_t i = 12; i < 24; ++i) CHECK(g[i] == 0.0);
      }
}

TEST_CASE("prompts: with one prompt the key's gradient is -lambda/B times the sum of the cosines', by differences") {
  VitConfig c = prompted(1, 2, 1, true);
  c.prompts.pull = 0.7;
  Model m(c, kReference);
  m.spread(5);
  const std::int64_t images_count = 3;
  const Tensor images = random_images(c, images_count, kReference), labels = some_labels(c, images_count, kReference);
  const Values queries = query_of(m, images), key = m.param("prompt.keys").master.to_host();
  const auto cosines = [&](const Values& k) {
    double sum = 0.0;
    for (std::int64_t b = 0; b < images_count; ++b)
      sum += dot(queries.data() + b * 12, k.data(), 12) / norm(k) /
             std::sqrt(dot(queries.data() + b * 12, queries.data() + b * 12, 12));
    return sum;
  };
  const Pass p = pass(m, images, labels, true);
  CHECK(std::abs(p.term + 0.7 / double(images_count) * cosines(key)) <
        1e-10);  // 1e-12 under the roots: 1e-12 of a norm of 1
  for (std::size_t i = 0; i < key.size(); ++i) {
    Values up = key, down = key;
    const double h = 1e-5;  // error h^2 of the third derivative, and 1e-16 / h of rounding
    up[i] += h, down[i] -= h;
    const double slope = -0.7 / double(images_count) * (cosines(up) - cosines(down)) / (2 * h);
    CHECK(std::abs(p.gradients.at("prompt.keys")[i] - slope) < 1e-8);
  }
  double used = 0.0;
  for (const double g : p.gradients.at("prompt.prompts")) used += std::abs(g);
  CHECK(used > 0.0);  // the only prompt is always used
  // A part of a larger batch adds its part.
  CHECK(std::abs(pass(m, images, labels, true, 12.0).term - p.term / 4.0) < kSameInDouble);
}

TEST_CASE("prompts: cross-entropy reaches the prompts alone, the cosine the keys alone, and neither the network") {
  VitConfig c = prompted(5, 2, 2);
  Model with(c, kReference), without(c, kReference);
  without.vit.config.prompts.pull = 0.0;
  for (Model* m : {&with, &without}) m->spread(6);
  const Tensor images = random_images(c, 4, kReference), labels = some_labels(c, 4, kReference);
  const Pass a = pass(with, images, labels), b = pass(without, images, labels);
  CHECK(b.term == 0.0);
  CHECK(a.gradients.at("prompt.prompts") == b.gradients.at("prompt.prompts"));
  CHECK(a.gradients.at("head.weight") == b.gradients.at("head.weight"));
  for (const double g : b.gradients.at("prompt.keys")) CHECK(g == 0.0);
  CHECK(norm(a.gradients.at("prompt.keys")) > 0.0);
  for (const Param* p : with.params) {
    CAPTURE(p->name);
    if (p->frozen) CHECK(norm(p->grad.to_host()) == 0.0);
  }
}

TEST_CASE(
    "prompts: an image gets those whose keys are nearest to its query, whatever their length; a batch those of most") {
  const std::int64_t count = 7;
  Model m(prompted(5, 1, 2), kReference);
  m.spread(8);
  const Tensor images = random_images(m.vit.config, count, kReference),
               labels = some_labels(m.vit.config, count, kReference);
  const Values queries = query_of(m, images);
  const auto chosen = [&] {  // prompts that got a gradient, by batch of one image
    std::vector<std::vector<bool>> all;
    for (std::int64_t b = 0; b < count; ++b) {
      const Values g = pass(m, images.slice(b, 1), labels.slice(b, 1)).gradients.at("prompt.prompts");
      std::vector<bool>& row = all.emplace_back();
      for (std::size_t k = 0; k < 5; ++k)
        row.push_back(norm(Values(g.begin() + k * 12, g.begin() + (k + 1) * 12)) > 0.0);
    }
    return all;
  };
  const auto nearest = chosen();
  Values keys = m.param("prompt.keys").master.to_host(), votes(5, 0.0);
  for (std::int64_t b = 0; b < count; ++b) {
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t k = 0; k < 5; ++k)
      order.emplace_back(
          -dot(unit(Values(keys.begin() + k * 12, keys.begin() + (k + 1) * 12)).data(), queries.data() + b * 12, 12),
          k);
    std::sort(order.begin(), order.end());
    for (std::size_t r = 0; r < 5; ++r) CHECK(nearest[std::size_t(b)][order[r].second] == (r < 2));
    for (std::size_t r = 0; r < 2; ++r) votes[order[r].second] += 1.0;
  }
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] *= i < 12 ? 100.0 : 0.3;
  set(m.param("prompt.keys"), keys);
  CHECK(chosen() == nearest);

  Model together(prompted(5, 1, 2, true), kReference);
  together.spread(8);
  const Values g = pass(together, images, labels, true).gradients.at("prompt.prompts");
  std::vector<std::pair<double, std::size_t>> order;
  for (std::size_t k = 0; k < 5; ++k) order.emplace_back(-votes[k], k);
  std::sort(order.begin(), order.end());
  for (std::size_t r = 0; r < 5; ++r) {
    const std::size_t k = order[r].second;
    CHECK((norm(Values(g.begin() + std::ptrdiff_t(k) * 12, g.begin() + std::ptrdiff_t(k + 1) * 12)) > 0.0) == (r < 2));
  }
  // In a test each image has its own again, unless the option says otherwise.
  CHECK(forward(together.vit, images, {}).to_host() != forward(together.vit, images, {.training = true}).to_host());
  together.vit.config.prompts.batchwise_test = true;
  CHECK(forward(together.vit, images, {}).to_host() == forward(together.vit, images, {.training = true}).to_host());
}

TEST_CASE("prompts: recomputing activations changes no bit, and pools that cannot work are refused by name") {
  VitConfig c = prompted(4, 2, 2);
  Model plain(c, kCpu);
  c.recompute = true;
  Model again(c, kCpu);
  for (Model* m : {&plain, &again}) m->spread(9);
  const Tensor images = random_images(c, 3, kCpu), labels = some_labels(c, 3, kCpu);
  CHECK(pass(plain, images, labels, true).gradients == pass(again, images, labels, true).gradients);

  const auto error = [](VitConfig wrong) {
    try {
      make_vit(wrong);
    } catch (const Error& e) { return std::string(e.what()); }
    return std::string();
  };
  CHECK(error(prompted(2, 1, 3)).find("prompt pool") != std::string::npos);
  CHECK(error(prompted(2, 0, 1)).find("prompt pool") != std::string::npos);
  VitConfig mean_pooled = prompted(2, 1, 1);
  mean_pooled.class_token = false;
  CHECK(error(mean_pooled).find("class token") != std::string::npos);
}

}  // namespace eg::test
