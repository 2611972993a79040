// tests/optim/test_arrow_setup.cpp - what ARROW takes of a model, how it is grouped, and which options go together.
#include <algorithm>

#include "autograd/functions.h"
#include "layers/vit.h"
#include "optim/arrow_options.h"
#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

namespace {

using Names = std::vector<std::string>;

/// A small real model with its arena.
struct Model {
  VitConfig config;
  Vit vit;
  std::vector<Param*> params;
  ParamArena arena;

  explicit Model(Device d, int depth = 6, DType activation = DType::f32) {
    config = vit_config("vit-ti", 8, 4, 32, depth, 2);
    config.classes = 5;
    vit = make_vit(config);
    params = parameters(vit);
    arena.build(params, d, d == kReference ? DType::f64 : activation);
    arena.initialise(params, 1);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  std::unique_ptr<Optimizer> optimizer(const std::string& method) {
    return make_optimizer(parse_method(method), {params, &arena, config.depth}, -1.0, -1.0);
  }
  Param& param(const std::string& name) {
    return **std::find_if(params.begin(), params.end(), [&](const Param* p) { return p->name == name; });
  }
};

/// The names of the windows, "group.ring.tensor".
Names windows(Optimizer& optimizer) {
  Names all;
  optimizer.visit_state([&](const std::string& name, Tensor&) {
    if (name.find(".ring.") != std::string::npos) all.push_back(name);
  });
  return all;
}

/// A fused projection of 3 x 2 rows, an output projection and their biases in block 0, and the MLP.
std::vector<Piece> block() {
  return {{.start = draw(1, 36), .name = "blocks.0.attn.qkv.weight", .module = Module::qkv, .shape = {6, 6}},
          {.start = draw(2, 6), .name = "blocks.0.attn.qkv.bias", .module = Module::qkv, .decays = false, .shape = {6}},
          {.start = draw(3, 12), .name = "blocks.0.attn.proj.weight", .shape = {6, 2}},
          {.start = draw(4, 6), .name = "blocks.0.attn.proj.bias", .decays = false, .shape = {6}},
          {.start = draw(5, 10), .name = "blocks.0.mlp.fc1.weight", .module = Module::fc1, .shape = {5, 2}},
          {.start = draw(6, 10), .name = "blocks.0.mlp.fc2.weight", .module = Module::fc2, .shape = {2, 5}}};
}
std::vector<Values> gradients(int step) {
  std::vector<Values> all;
  for (std::size_t i = 0; i < block().size(); ++i) all.push_back(draw(step, block()[i].start.size(), std::uint32_t(i)));
  return all;
}

}  // namespace

TEST_CASE("arrow: takes q, k, v and output of the last blocks of a real model, and says so") {
  Model m(kCpu);
  const auto names = [&](const std::string& method) {
    const auto optimizer = m.optimizer(method);
    std::vector<std::string> rings;
    optimizer->visit_state([&](const std::string& name, Tensor& t) {
      const auto at = name.find(".ring.");
      if (at == std::string::npos) return;
      rings.push_back(name.substr(at + 6));
      CHECK(t.dim(1) % (32 * 32) == 0);
    });
    return rings;
  };
  CHECK(names("arrow").size() == 16);  // 4 blocks, 4 matrices
  CHECK(names("arrow:tensors=v:blocks=5") == std::vector<std::string>{"blocks.5.attn.qkv.v.weight"});
  CHECK(names("arrow:tensors=qo:blocks=0+2") ==
        std::vector<std::string>{"blocks.0.attn.qkv.q.weight", "blocks.0.attn.proj.weight",
                                 "blocks.2.attn.qkv.q.weight", "blocks.2.attn.proj.weight"});
  CHECK(names("arrow:mlp:blocks=first-1").size() == 6);
  CHECK(parse_blocks("all", 3) == std::vector<int>{0, 1, 2});
  CHECK(parse_blocks("last-4", 3) == std::vector<int>{0, 1, 2});
  CHECK(parse_blocks("4+1-2", 6) == std::vector<int>{1, 2, 4});
  const auto optimizer = m.optimizer("arrow");
  CHECK(contains(optimizer->describe(),
                 "qkvo of blocks 2,3,4,5 (16 tensors, 16384 parameters, 4 windows of together 0.6 MiB; on one rank "
                 "a step with full windows reads and writes 1.7 MiB of gradient, windows, moments and weights)"));
  // Bytes of an element, W = 8, all fp32. Observe: the gradient and 9 columns, 40. The base's moments: gradient and twice two
  // moments, 20. Update: gradient, 9 columns, the weight twice, 48. Without moments 88; a norm control reads two moments
  // instead of 9 columns, 80; a bf16 ring has columns of 2 bytes, 72.
  const auto moved = [&](const std::string& method, double bytes) {
    const double mib = std::round(16384 * bytes / (1 << 20) * 10) / 10;
    return contains(m.optimizer(method)->describe(), cat("reads and writes ", mib, " MiB of gradient"));
  };
  CHECK(moved("arrow", 108));
  CHECK(moved("arrow:base=sgd:graft=none:warmup=none", 88));
  CHECK(moved("norm-control", 80));
  CHECK(moved("arrow:ring=bf16", 72));
  CHECK(moved("arrow:momentum=0.9", 116));
  CHECK(contains(m.optimizer("arrow:tensors=v:blocks=5:window=1")->describe(), "1 window of together 8 KiB"));
}

TEST_CASE("arrow: each grouping of a real model names its windows") {
  Model m(kCpu);
  const auto of = [&](const std::string& options) {
    return windows(*m.optimizer("arrow:blocks=5:tensors=kv" + options));
  };
  const std::string k = ".ring.blocks.5.attn.qkv.k.weight", v = ".ring.blocks.5.attn.qkv.v.weight",
                    v_bias = ".ring.blocks.5.attn.qkv.v.bias";
  CHECK(of("") == Names{"block5" + k, "block5" + v});
  CHECK(of(":grouping=tensor") == Names{"blocks.5.attn.qkv.k.weight" + k, "blocks.5.attn.qkv.v.weight" + v});
  CHECK(of(":grouping=module") == Names{"block5.k" + k, "block5.v" + v});
  // A key bias has no gradient but rounding noise: it is never taken.
  CHECK(of(":grouping=module:biases") == Names{"block5.k" + k, "block5.v" + v, "block5.v" + v_bias});
  CHECK(of(":grouping=global") == Names{"all" + k, "all" + v});
  CHECK(windows(*m.optimizer("arrow:grouping=global:mlp:biases")).size() == 4 * 11);
  CHECK(contains(m.optimizer("arrow:grouping=tensor")->describe(),
                 "(16 tensors, 16384 parameters, 16 windows of together"));
  CHECK(contains(m.optimizer("arrow:grouping=global:blocks=all")->describe(),
                 "blocks 0,1,2,3,4,5 (24 tensors, 24576 parameters, 1 window of together"));
}

TEST_CASE("arrow: frozen parameters are in no window, and a choice that leaves nothing is refused") {
  Model m(kCpu);
  for (Param* p : m.params) p->frozen = p->name.find("attn.qkv") != std::string::npos;
  CHECK(windows(*m.optimizer("arrow:blocks=last-1")) == Names{"block5.ring.blocks.5.attn.proj.weight"});
  CHECK(contains(usage_error([&] { m.optimizer("arrow:tensors=qk"); }), "leave nothing to update"));
}

TEST_CASE("arrow: exactly the chosen rows leave the base optimizer's path") {
  for (const Device d : kBoth)
    for (const bool adam : {true, false}) {
      Rig base(d, adam ? "adamw" : "sgd:momentum=0:decoupled", block(), 0.01, 0.05);
      Rig arrow(d, std::string("arrow:warmup=none:tensors=ko:biases:base=") + (adam ? "adamw" : "sgd"), block(), 0.01,
                0.05);
      for (int i = 0; i < 3; ++i) base.step(gradients(i)), arrow.step(gradients(i));
      // Rows 2 and 3 of the fused matrix, and the output projection with its bias.
      const std::vector<std::pair<std::size_t, std::size_t>> taken = {{12, 24}, {0, 0}, {0, 12},
                                                                      {0, 6},   {0, 0}, {0, 0}};
      for (std::size_t p = 0; p < taken.size(); ++p) {
        const Values a = arrow.weights(p), b = base.weights(p);
        CAPTURE(p);
        for (std::size_t i = 0; i < a.size(); ++i) {
          CAPTURE(i);
          CHECK((a[i] != b[i]) == (i >= taken[p].first && i < taken[p].second));
        }
      }
    }
}

TEST_CASE("arrow: a group over several tensors and blocks takes the step of one long vector") {
  for (const Device d : kBoth) {
    const auto form = [](const std::string& options) {
      return literal("alpha=0.5:beta=1:window=3:momentum=0.5:momentum-form=gradient" + options);
    };
    const std::vector<Piece> parts = {{.start = Values(5, 0.0)},
                                      {.start = Values(4, 0.0), .name = "blocks.0.attn.proj.bias", .shape = {4}},
                                      {.start = Values(3, 0.0), .name = "blocks.1.attn.proj.weight", .block = 1}};
    Rig whole(d, form(""), {{.start = Values(12, 0.0)}}, 1.0), block(d, form(""), {{.start = Values(9, 0.0)}}, 1.0);
    Rig global(d, form(":grouping=global:biases"), parts, 1.0), module(d, form(":grouping=module:biases"), parts, 1.0);
    for (int i = 0; i < 5; ++i) {
      const Values g = draw(i, 12), u = whole.direction(g), v = block.direction(Values(g.begin(), g.begin() + 9));
      const std::vector<Values> split = {
          {g.begin(), g.begin() + 5}, {g.begin() + 5, g.begin() + 9}, {g.begin() + 9, g.end()}};
      const auto joined = [&](Rig& rig, std::size_t count) {
        rig.direction(split);
        Values all;
        for (std::size_t p = 0; p < count; ++p)
          for (const double w : rig.weights(p)) all.push_back(-w);
        return all;
      };
      check_close(joined(global, 3), u, d, 32.0, 1e-12);
      check_close(joined(module, 2), v, d, 32.0, 1e-12);
    }
  }
}

TEST_CASE("arrow: observed inside backward, the newest column is the gradient of the real model") {
  for (const Device d : kBoth) {
    Model m(d, 3);
    const auto optimizer = m.optimizer("arrow:warmup=none:window=2:blocks=all:mlp:biases");
    StepRecord record;
    StepContext ctx{&record, &record, 1.0, {}};
    std::vector<std::uint8_t> pixels(2 * 3 * 8 * 8);
    const Segment all{0, m.arena.size};
    for (int step = 0; step < 4; ++step) {
      for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::uint8_t(key(7, "test", "pixels").below(i, 256));
      optimizer->prepare(ctx);
      Tape tape;
      const Watched watched(tape, m.vit, false);
      tape.on_gradient_final([&](int group) { optimizer->on_gradient_final(group, ctx); });
      const Tensor labels = Tensor::from(std::vector<std::int32_t>{step % 5, 2}, {2}, d);
      backward(tape, cross_entropy(forward(m.vit, Tensor::from(pixels, {2, 3, 8, 8}, d), {}), labels, {}, {}));
      EVERGRAD_CALL(d, global_norm, GlobalNorm{.grad = m.arena.grad.view(), .segments = {&all, 1}, .step = &record});
      optimizer->step(ctx);
    }
    std::int64_t newest = -1;
    int compared = 0;
    optimizer->visit_state([&](const std::string& name, Tensor& t) {
      const auto at = name.find(".ring.");
      if (name.ends_with(".state"))
        newest = (reinterpret_cast<const ArrowState*>(t.data_as<std::uint8_t>())->next + 2) % 3;
      if (at == std::string::npos) return;
      std::string tensor = name.substr(at + 6);
      std::int64_t third = -1;
      for (const std::string part : {".q.", ".k.", ".v."})
        if (const auto p = tensor.find(part); p != std::string::npos)
          third = std::string("qkv").find(part[1]), tensor.erase(p, 2);
      const Values grad = m.param(tensor).grad.to_host(), column = t.slice(newest, 1).to_host();
      const std::size_t begin = third < 0 ? 0 : std::size_t(third) * column.size();
      CHECK(column ==
            Values(grad.begin() + std::ptrdiff_t(begin), grad.begin() + std::ptrdiff_t(begin + column.size())));
      CHECK(length(column) > 0.0);
      ++compared;
    });
    CHECK(compared == 3 * 11);
  }
}

TEST_CASE("arrow: an option that the others switch off is refused, with what it needs") {
  const auto reading = [](const std::string& options) {
    return usage_error([&] { read_arrow_settings(parse_method("arrow:" + options), 4, 0.0); });
  };
  for (const auto& [options, word] : std::vector<std::pair<std::string, std::string>>{
           {"beta=0", "beta has an effect only with damping=absolute or relative"},
           {"paper:kappa=3", "kappa has an effect only with damping=dimensionless"},
           {"damping=relative:alpha=1", "alpha has an effect only with"},
           {"rho=0.5", "damping=relative"},
           {"relative-over=all", "damping=relative"},
           {"damping=relative:beta=0", "beta=0 must be a number from 1e-30"},
           {"warmup=none:warmup-steps=3", "warmup=base, beta-ramp or alpha-decay"},
           {"alpha-final=2", "alpha-schedule=linear or exponential"},
           {"alpha-steps=2", "alpha-schedule=linear or exponential"},
           {"momentum-form=gradient", "momentum above 0"},
           {"damping=relative:alpha-schedule=linear", "cannot follow a schedule"},
           {"base=sgd:graft=adamw", "base=adamw"},
           {"alpha-schedule=cosine", "constant, linear, exponential"},
           {"boundary=clean", "clear, keep, clear-keep-warm"},
           {"ring=fp16", "fp32, bf16"},
           {"window=65", "from 1 to 64"},
           {"blocks=3-1", "0 to 3"},
           {"blocks=", "0 to 3"},
           {"blocks=last-", "last-N"},
           {"blocks=1+", "0 to 3"}})
    CHECK(contains(reading(options), word));
  for (const char* fine :
       {"paper:alpha-schedule=exponential:alpha-final=0.1:alpha-steps=100", "warmup=beta-ramp:window=64",
        "alpha=2:warmup=alpha-decay", "damping=relative:relative-over=all:beta=2:divisor=filled", "blocks=last-9",
        "base=sgd:graft=sgd:momentum=0.9:momentum-form=gradient:ring=bf16"})
    CHECK(reading(fine) == "no error");
  CHECK(contains(usage_error([] { read_arrow_settings(parse_method("norm-control:graft=sgd"), 4, 0.0); }), "no place"));
  CHECK(contains(usage_error([] { read_arrow_settings(parse_method("norm-control:momentum=0.5"), 4, 0.0); }),
                 "no place"));
}

TEST_CASE("arrow: the defaults are those that the documentation promises") {
  const ArrowSettings s = read_arrow_settings(parse_method("arrow"), 12, 0.05);
  CHECK(s.blocks == std::vector<int>{8, 9, 10, 11});
  CHECK(s.tensors == "qkvo");
  CHECK((!s.mlp && !s.biases && s.adamw_base && !s.bf16_ring && !s.norm_control));
  CHECK(s.grouping == ArrowGrouping::block);
  CHECK(s.solve.window == 8);
  CHECK(s.solve.damping == ArrowDamping::dimensionless);
  CHECK(s.solve.kappa == 10.0);
  CHECK(s.solve.warmup == ArrowWarmup::base);
  CHECK(s.solve.warmup_steps == 8);
  CHECK(read_arrow_settings(parse_method("arrow:window=5"), 12, 0.05).solve.warmup_steps == 5);
  CHECK(s.boundary == ArrowBoundary::clear);
  CHECK(s.graft == ArrowGraft::adamw);
  CHECK(s.momentum == 0.0);
  CHECK(s.lr < 0.0);  // the base's rate
  const ArrowSettings paper = read_arrow_settings(parse_method("arrow:paper"), 12, 0.05);
  CHECK(paper.solve.damping == ArrowDamping::absolute);
  CHECK((paper.solve.alpha == 1.0 && paper.solve.beta == 1.0 && !paper.solve.divide_by_filled));
  CHECK(paper.graft == ArrowGraft::none);
  CHECK(paper.lr == 0.1);
}

TEST_CASE("arrow: with base=sgd the rate and the decay are SGD's by default, and decay keeps the base's rate") {
  const double decay = double(float(5e-4));
  for (const Device d : kBoth) {
    Rig sgd(d, "arrow:base=sgd:window=2", {{.start = {1.0, 1.0}}}, -1.0, -1.0);
    check_close(sgd.taken({1, 0}), {0.1 * decay + 0.1, 0.1 * decay}, d);  // warm-up
    // Not grafted, ARROW's rate is 100 times AdamW's; the weights are still shrunk at AdamW's.
    Rig paper(d, "arrow:paper:warmup=none:alpha=1:beta=0", {{.start = {1.0, 1.0}}}, -1.0, -1.0);
    check_close(paper.taken({1, 0}), {1e-3 * double(0.05f) + 0.1, 1e-3 * double(0.05f)}, d);
  }
}
