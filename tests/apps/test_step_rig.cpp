// tests/apps/test_step_rig.cpp - what bench times: steps on batches that lie ready.
#include "apps/bench/step_rig.h"

#include <doctest/doctest.h>

#include <cstring>

#include "tests/apps/command.h"

using namespace eg;

namespace {
BenchOptions tiny() {
  BenchOptions o;
  o.model.dim = 16, o.model.depth = 1, o.model.heads = 1, o.model.image_size = 16, o.model.patch = 8;
  o.machine.device = "cpu", o.machine.precision = "fp32";
  o.classes = 3, o.batch = 8;
  return o;
}
}  // namespace

TEST_CASE("step rig: a few whole batches, each of its own images, go around") {
  const BenchOptions o = tiny();
  StepRig rig(o, resolve_machine(o.machine), "sgd");
  std::vector<const Batch*> seen;
  for (int i = 0; i < 6; ++i) seen.push_back(&rig.next());
  for (std::size_t i = 0; i < 3; ++i) {
    const Batch &b = *seen[i], &other = *seen[(i + 1) % 3];
    CHECK(seen[i + 3] == seen[i]);
    CHECK(b.count == 8);
    CHECK(b.labels.size() == 8);
    REQUIRE(b.images.size() == std::size_t(8 * 3 * 16 * 16));
    REQUIRE(other.images.size() == b.images.size());
    CHECK(std::memcmp(b.images.data(), other.images.data(), b.images.size()) != 0);
  }
  CHECK(rig.loader_images_per_second() > 0.0);
  CHECK(rig.loader_workers() >= 1);
  rig.warm_up();
}

TEST_CASE("step rig: a data set of little more than one batch gives that one again and again") {
  BenchOptions o = tiny();
  o.classes = 1, o.batch = 499;  // of 500 images
  StepRig rig(o, resolve_machine(o.machine), "sgd");
  const Batch* const first = &rig.next();
  CHECK(first->count == 499);
  CHECK(&rig.next() == first);
}

TEST_CASE("bench --clip-norm 0: an update inside backward can be timed, which clipping rules out") {
  const Args command =
      Args{"bench", "--step", "--steps", "1", "--batch", "4", "--methods", "arrow:update=backward"} + tiny_model();
  check_refused(evergrad(command), 2, {"--clip-norm 0"});
  const Ended e = evergrad(command + Args{"--clip-norm", "0"});
  INFO(e.all());
  CHECK(e.code == 0);
  CHECK(contains(e.out, "arrow:update=backward"));
}
