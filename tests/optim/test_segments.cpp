// tests/optim/test_segments.cpp - which ranges of the arena are updated, and which of them decay.
#include "layers/vit.h"
#include "optim/segments.h"
#include "tests/optim/rig.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("segments: neighbours with the same decay join, frozen parameters are in none") {
  Rig rig(kCpu, "sgd",
          {{.start = Values(5, 0.0), .name = "a"},
           {.start = Values(17, 0.0), .name = "b"},
           {.start = Values(3, 0.0), .name = "c", .decays = false},
           {.start = Values(4, 0.0), .name = "d", .frozen = true},
           {.start = Values(6, 0.0), .name = "e"}});
  const std::vector<Segment> s = segments_of({rig.list, &rig.arena, 1}, 0.5);
  std::vector<int> covered(std::size_t(rig.arena.size), -1);
  for (std::size_t i = 0; i < s.size(); ++i)
    for (std::int64_t k = s[i].begin; k < s[i].end; ++k) {
      CHECK(covered[std::size_t(k)] == -1);
      covered[std::size_t(k)] = int(i);
    }
  CHECK(s.size() == 3);
  for (const Param* p : rig.list)
    for (std::int64_t k = p->offset; k < p->offset + p->size(); ++k) {
      CHECK((covered[std::size_t(k)] >= 0) == !p->frozen);
      if (!p->frozen) CHECK(s[std::size_t(covered[std::size_t(k)])].weight_decay == (p->decays ? 0.5f : 0.0f));
    }
}

TEST_CASE("segments: as few ranges as possible, in the arena's order, over the padding between neighbours") {
  // Backward's order, each at a multiple of 16: e at 0, d 16, c 32, b 48 (17 long), a 80.
  Rig rig(kCpu, "sgd",
          {{.start = Values(5, 0.0), .name = "a"},
           {.start = Values(17, 0.0), .name = "b"},
           {.start = Values(3, 0.0), .name = "c", .decays = false},
           {.start = Values(4, 0.0), .name = "d", .frozen = true},
           {.start = Values(6, 0.0), .name = "e", .decays = false}});
  const auto ranges = [&](double decay) {
    std::vector<std::vector<double>> all;
    for (const Segment& s : segments_of({rig.list, &rig.arena, 1}, decay, 3)) {
      CHECK((s.slot == 3 && s.lr_scale == 1.0f));
      all.push_back({double(s.begin), double(s.end), double(s.weight_decay)});
    }
    return all;
  };
  using Ranges = std::vector<std::vector<double>>;
  CHECK(ranges(0.5) == Ranges{{0, 6, 0}, {32, 35, 0}, {48, 85, 0.5}});
  CHECK(ranges(0.0) == Ranges{{0, 6, 0}, {32, 85, 0}});
  for (Param* p : rig.list) p->frozen = true;
  CHECK(ranges(0.5).empty());
}

TEST_CASE("weight decay: of a real model the matrices are decayed, and biases, norms, tokens and positions are not") {
  VitConfig c = vit_config("vit-ti", 32, 4, 32, 2, 2);
  c.registers = 2, c.layer_scale = 0.1, c.qk_norm = true;
  Vit vit = make_vit(c);
  const std::vector<Param*> params = parameters(vit);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  const std::vector<Segment> segments = segments_of({params, &arena, c.depth}, 0.5);
  int decayed = 0;
  for (const Param* p : params) {
    const bool matrix = p->name.ends_with(".weight") && p->name.find("norm") == std::string::npos;
    CAPTURE(p->name);
    float decay = -1.0f;
    for (const Segment& s : segments)
      if (s.begin <= p->offset && p->offset + p->size() <= s.end) decay = s.weight_decay;
    CHECK(decay == (matrix ? 0.5f : 0.0f));
    decayed += matrix;
  }
  CHECK(decayed == 2 * 4 + 2);  // qkv, proj, fc1, fc2 of two blocks, the patch projection and the head
}

TEST_CASE("segments: a network of 12 blocks has fewer than one launch of an update carries") {
  VitConfig c = vit_config("vit-ti", 32, 4, 32, 12, 2);
  Vit vit = make_vit(c);
  const std::vector<Param*> params = parameters(vit);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  // Of a block: four matrices, each followed by what is not decayed. Two more matrices, the head and the patch projection,
  // with what stands around them. One launch carries 106 (cuda/kernels/segments.cuh).
  CHECK(segments_of({params, &arena, c.depth}, 0.5).size() == 12 * 8 + 5);
}
