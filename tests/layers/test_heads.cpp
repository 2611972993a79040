// tests/layers/test_heads.cpp - what happens to the head when tasks change.
#include <doctest/doctest.h>

#include <algorithm>

#include "model.h"

using namespace eg;
using namespace eg::test;

namespace {

using Values = std::vector<double>;
Values weight(Model& m) { return m.vit.head.weight.master.to_host(); }
Values bias(Model& m) { return m.vit.head.bias.master.to_host(); }

/// Everything but the head.
std::map<std::string, Values> body(Model& m) {
  std::map<std::string, Values> all;
  for (const Param* p : m.params)
    if (p->role != Role::head) all[p->name] = p->master.to_host();
  return all;
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "";
}

}  // namespace

TEST_CASE("head: a reset draws weight and bias afresh, reproducibly, and touches nothing else") {
  for (const DType activation : {DType::f32, DType::bf16}) {
    Model m(small_config(), kCpu, 1, activation);
    const Values start = weight(m);
    m.spread(4);
    const auto rest = body(m);
    reset_head(m.vit, m.arena, 1, 0);
    CHECK(weight(m) == start);  // redraw 0 is the draw of the start
    CHECK(bias(m) == Values(5, 0.0));
    reset_head(m.vit, m.arena, 1, 3);
    const Values third = weight(m);
    CHECK(third != start);
    CHECK(body(m) == rest);
    zero_head(m.vit, m.arena);
    reset_head(m.vit, m.arena, 1, 3);
    CHECK(weight(m) == third);
    // The forward pass reads the working copy: it must have followed.
    Values rounded = third;
    for (double& x : rounded) x = activation == DType::bf16 ? double(bf16(x)) : x;
    CHECK(m.vit.head.weight.value.to_host() == rounded);
  }
}

TEST_CASE("head: zeroed, it gives equal logits, so the loss is the logarithm of the number of classes") {
  for (const DType activation : {DType::f32, DType::bf16}) {
    Model m(small_config(), kCpu, 1, activation);
    m.spread(4);
    const auto rest = body(m);
    zero_head(m.vit, m.arena);
    CHECK(body(m) == rest);
    const Tensor logits = forward(m.vit, random_images(m.vit.config, 3, kCpu), {});
    for (const double z : logits.to_host()) CHECK(z == 0.0);
    const double loss = run_step(m, random_images(m.vit.config, 3, kCpu), some_labels(m.vit.config, 3, kCpu));
    CHECK(loss == doctest::Approx(std::log(5.0)).epsilon(1e-6));
  }
}

TEST_CASE("class mask: allows exactly the listed classes, and masked classes get no gradient") {
  const std::vector<std::int64_t> allowed{0, 2, 4};
  const Tensor mask = class_mask(allowed, 5, kCpu);
  CHECK(mask.dtype() == DType::u8);
  CHECK(mask.to_host() == Values{1, 0, 1, 0, 1});
  Model m(small_config(), kCpu);
  m.spread(4);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{2, 0, 4}, {3}, kCpu);
  Tape tape;
  const Watched watched(tape, m.vit, false);
  backward(tape, cross_entropy(forward(m.vit, random_images(m.vit.config, 3, kCpu), {}), labels, {}, mask, 0.1));
  const Values gradient = m.vit.head.weight.grad.to_host();
  for (std::int64_t k = 0; k < 5; ++k) {
    const double size = norm({gradient.begin() + k * 12, gradient.begin() + (k + 1) * 12});
    CHECK((size > 0.0) == (k % 2 == 0));
  }
}

TEST_CASE("class mask: an empty list and a class that does not exist are refused") {
  const std::vector<std::int64_t> none, outside{1, 5}, negative{-1};
  CHECK(refusal([&] { class_mask(none, 5, kCpu); }).find("no class is allowed") != std::string::npos);
  CHECK(refusal([&] { class_mask(outside, 5, kCpu); }).find("class 5 does not exist, the head has 5") !=
        std::string::npos);
  CHECK(refusal([&] { class_mask(negative, 5, kCpu); }).find("class -1") != std::string::npos);
}

TEST_CASE("head bank: every task gets its own head back, bit for bit; a new task a fresh one") {
  for (const DType activation : {DType::f32, DType::bf16}) {
    Model m(small_config(), kCpu, 1, activation);
    const auto rest = body(m);
    HeadBank bank;
    std::vector<Values> weights, biases;
    for (std::int64_t task = 0; task < 3; ++task) {
      bank.switch_head(m.vit, m.arena, task - 1, task, 9);
      CHECK(!bank.has(task));  // it is in the model, not in the bank
      CHECK(weight(m) == [&] {
        Values w = ParamArena::draw(m.vit.head.weight, 9, std::uint32_t(task) + 1);
        for (double& x : w) x = double(float(x));
        return w;
      }());
      const Values trained(5, 0.25 * double(task + 1));
      m.vit.head.bias.master.copy_from(Tensor::from(trained, {5}, DType::f32, kCpu));
      weights.push_back(weight(m)), biases.push_back(bias(m));
    }
    std::int64_t current = 2;
    for (const std::int64_t task : {0, 2, 1, 0}) {
      bank.switch_head(m.vit, m.arena, current, task, 9);
      CHECK(weight(m) == weights[std::size_t(task)]);
      CHECK(bias(m) == biases[std::size_t(task)]);
      CHECK(m.vit.head.bias.value.to_host() == biases[std::size_t(task)]);  // multiples of 1/4 are exact in bf16
      current = task;
    }
    CHECK(body(m) == rest);
    CHECK(bank.bytes() == 3 * (5 * 12 + 5) * sizeof(float));
  }
}

TEST_CASE("head bank: its state can be visited by name and restored") {
  Model m(small_config(), kCpu), other(small_config(), kCpu, 77);
  HeadBank bank, restored;
  bank.switch_head(m.vit, m.arena, -1, 0, 9);
  const Values first = weight(m);
  bank.switch_head(m.vit, m.arena, 0, 1, 9);
  std::map<std::string, Tensor> state;
  bank.visit_state([&](const std::string& name, Tensor& t) { state[name] = t; });
  REQUIRE(state.size() == 2);
  CHECK(state.at("head.0.weight").to_host() == first);
  restored.add(0, other.vit);
  restored.visit_state([&](const std::string& name, Tensor& t) { t.copy_from(state.at(name)); });
  restored.switch_head(other.vit, other.arena, 1, 0, 9);
  CHECK(weight(other) == first);
}

TEST_CASE("head bank: a task below 0 and a head of another size are refused") {
  Model m(small_config(), kCpu);
  VitConfig wider = small_config();
  wider.classes = 7;
  Model other(wider, kCpu);
  HeadBank bank;
  bank.switch_head(m.vit, m.arena, -1, 0, 9);
  bank.switch_head(m.vit, m.arena, 0, 1, 9);
  CHECK(refusal([&] { bank.switch_head(m.vit, m.arena, 1, -2, 9); }).find("got -2") != std::string::npos);
  CHECK(refusal([&] { bank.switch_head(other.vit, other.arena, -1, 0, 9); }).find("the head of task 0") !=
        std::string::npos);
}
