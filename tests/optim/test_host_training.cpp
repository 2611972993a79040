// tests/optim/test_host_training.cpp - the loop of a program of one's own: the same updates as the method alone gives, in
// the order of a training loop, and methods that need more are refused.
#include <doctest/doctest.h>

#include "optim/host_training.h"
#include "tests/optim/rig.h"

using namespace eg;
using eg::test::Values;

namespace {

/// Block 0 has a projection with four weights, and there is one more outside the blocks, which is frozen or not.
std::vector<Param> network(bool frozen) {
  std::vector<Param> all(2);
  all[0].name = "blocks.0.attn.proj.weight", all[0].module = Module::proj, all[0].block = 0, all[0].decays = true;
  all[1].name = "head.weight", all[1].module = Module::head, all[1].role = Role::head, all[1].frozen = frozen;
  for (Param& p : all) p.shape = {2, 2}, p.fan_in = 2, p.init = {Init::Rule::normal, 1.0};
  return all;
}
std::vector<Param*> pointers(std::vector<Param>& all) { return {&all[0], &all[1]}; }
void give(const Param& p, const Values& gradient) {
  p.grad.copy_from(Tensor::from(gradient, p.shape, p.grad.dtype(), kCpu));
}

}  // namespace

TEST_CASE("host training: SGD by hand, with the gradient clipped, a schedule, and a frozen parameter left alone") {
  std::vector<Param> all = network(true);
  HostTraining training(pointers(all), 1,
                        {.method = "sgd:momentum=0", .lr = 0.5, .weight_decay = 0.0, .max_norm = 2.5, .seed = 3});
  const Values before = all[0].master.to_host(), head = all[1].master.to_host();
  const Values drawn = ParamArena::draw(all[0], 3);
  for (std::size_t i = 0; i < 4; ++i) CHECK(before[i] == double(float(drawn[i])));
  training.begin(8, 16, 0.5);
  CHECK(training.record().first_sample == 16);
  give(all[0], {3, 0, 4, 0}), give(all[1], {100, 0, 0, 0});  // norm 5 without the frozen one: halved
  training.finish();
  CHECK(training.record().step == 1);
  for (std::size_t i = 0; i < 4; ++i)  // w - (0.5 x 0.5) x 0.5 g, in fp32
    CHECK(all[0].master.to_host()[i] == doctest::Approx(before[i] - 0.125 * Values{3, 0, 4, 0}[i]).epsilon(1e-6));
  CHECK(all[1].master.to_host() == head);

  // A gradient that is not finite changes nothing but the count of skipped updates.
  const Values after = all[0].master.to_host();
  training.begin(8);
  give(all[0], {NAN, 0, 0, 0}), give(all[1], {0, 0, 0, 0});
  training.finish();
  CHECK(all[0].master.to_host() == after);
  CHECK(training.record().skipped == 1);
}

TEST_CASE("host training: ARROW, which observes gradients block by block, steps as in the other loop") {
  std::vector<Param> all = network(false);
  const std::string method = "arrow:window=2";
  HostTraining training(pointers(all), 1, {.method = method, .lr = 0.1, .weight_decay = 0.0, .max_norm = 0.0});
  test::Rig rig(kCpu, method,
                {{.start = all[0].master.to_host(), .shape = {2, 2}},
                 {.start = all[1].master.to_host(),
                  .name = "head.weight",
                  .module = Module::head,
                  .block = -1,
                  .decays = false,
                  .shape = {2, 2},
                  .role = Role::head}},
                0.1, 0.0, 0.0, DType::f32);
  for (int step = 0; step < 5; ++step) {
    const Values g = {1.0 + step, -2.0, 0.5 * step, 1.0}, h = {1, 2, 3, 4};
    training.begin(1);
    give(all[0], g), give(all[1], h);
    training.finish();
    rig.step({g, h});
    CHECK(all[0].master.to_host() == rig.list[0]->master.to_host());
    CHECK(all[1].master.to_host() == rig.list[1]->master.to_host());
  }
}

TEST_CASE("host training: a method that needs another model or loop is refused with the command that has it") {
  for (const char* method : {"sam", "crelu", "l2p", "adaptive-replay"}) {
    CAPTURE(std::string(method));
    std::vector<Param> all = network(false);
    std::string text = "no error";
    try {
      HostTraining(pointers(all), 1, {.method = method});
    } catch (const Error& e) {
      CHECK(e.kind == Kind::usage);
      text = e.what();
    }
    CHECK(text.find(cat("evergrad continual --methods ", method)) != std::string::npos);
  }
}
