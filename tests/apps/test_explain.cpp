// tests/apps/test_explain.cpp - the cost of a training step against published counts, the model's own, and memory in use.
#include <doctest/doctest.h>

#include <cmath>

#include "apps/explain/table.h"
#include "apps/explain/trace.h"
#include "apps/trainer.h"
#include "autograd/functions.h"
#include "engine/memory.h"
#include "engine/parallel.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {

StepShape shape_of(const VitConfig& vit, std::int64_t batch, bool gpu = false) {
  return {.vit = vit, .batch = batch, .narrow_gradients = gpu, .method = parse_method("adamw")};
}
VitConfig vit16(const std::string& preset) {
  VitConfig c = vit_config(preset, 224, 16);
  c.classes = 1000, c.precision = DType::bf16;
  return c;
}
const Operation& find(const std::vector<Operation>& all, Pass pass, const std::string& name) {
  for (const Operation& o : all)
    if (o.pass == pass && o.name == name) return o;
  FAIL("no operation ", name);
  return all[0];
}
double products(const std::vector<Operation>& all, Pass pass) {
  double sum = 0.0;
  for (const Operation& o : all)
    if (o.pass == pass && o.product) sum += o.flops;
  return sum;
}
constexpr Roof kH100{790e3, 3000.0, ""}, kH200{790e3, 4300.0, ""};

}  // namespace

TEST_CASE("explain: parameters and operations of ViT-Ti, S, B and L are the published ones, to their last digit") {
  struct Published {
    const char* preset;
    double parameters_m, forward_gf, train_gf;
    double digit_p, digit_f, digit_t;  // half a unit of the last digit that is printed
  };
  for (const Published& p :
       {Published{"vit-ti", 5.72, 2.51, 7.46, .005, .005, .005}, Published{"vit-s", 22.05, 9.20, 27.5, .005, .005, .05},
        Published{"vit-b", 86.57, 35.1, 105.2, .005, .05, .05},
        Published{"vit-l", 304.3, 123.1, 369.0, .05, .05, .05}}) {
    INFO(p.preset);
    VitConfig c = vit16(p.preset);
    c.narrow_last = false;  // the published counts compute every token everywhere
    const std::int64_t batch = 256;
    const std::vector<Operation> all = training_step(shape_of(c, batch, true));
    const Totals t = totals(all, kH100);
    CHECK(std::abs(t.parameters * 1e-6 - p.parameters_m) <= p.digit_p);
    CHECK(std::abs(t.forward_flops / batch * 1e-9 - p.forward_gf) <= p.digit_f);
    // Training as it is usually counted: what the scores cost a second time in backward is left out.
    const double again = 2.0 / 10.0 * find(all, Pass::backward, "attention").flops;
    const double train = t.forward_flops + products(all, Pass::backward) - again;
    CHECK(std::abs(train / batch * 1e-9 - p.train_gf) <= p.digit_t);
  }
}

TEST_CASE("explain: the rows add up to the model's own counts, whatever is switched on") {
  VitConfig plain = vit_config("vit-ti", 32, 4, 48, 3, 4);
  plain.classes = 7;
  std::vector<VitConfig> all(8, plain);
  all[1].class_token = false;
  all[2].registers = 3;
  all[3].qk_norm = true;
  all[4].layer_scale = 0.1;
  all[5].activation = Activation::crelu;
  all[6].pos = PosEmbed::sincos;
  all[7].recompute = true;
  for (std::size_t i = 0; i < all.size(); ++i) {
    INFO("configuration ", i);
    const std::int64_t batch = 4;
    const std::vector<Operation> rows = training_step(shape_of(all[i], batch));
    const Totals t = totals(rows, kH100);
    CHECK(t.parameters == double(all[i].parameter_count()));
    VitConfig wide = all[i];
    wide.narrow_last = false;
    const std::vector<Operation> whole = training_step(shape_of(wide, batch));
    CHECK(products(whole, Pass::forward) == doctest::Approx(batch * wide.forward_flops()).epsilon(1e-12));
    const double again = 2.0 / 10.0 * find(rows, Pass::backward, "attention").flops;
    CHECK(products(rows, Pass::forward) + products(rows, Pass::backward) - again ==
          doctest::Approx(batch * all[i].executed_train_flops()).epsilon(all[i].recompute ? 0.02 : 1e-12));
    for (const Operation& o : rows) {
      INFO(o.name);
      CHECK(o.flops > 0.0);
      CHECK(o.bytes > 0.0);
      CHECK(floor_seconds(o, kH100) > 0.0);
    }
  }
}

TEST_CASE("explain: the floor of a step is the one that was derived by hand, within what that left out") {
  // The hand-made sums leave out patchify, the tokens and half of the first norm's traffic: 1 % of ViT-B's step, 2 % of
  // the smaller ones'.
  struct Derived {
    const char* preset;
    double h100_ms, h200_ms;
  };
  for (const Derived& d : {Derived{"vit-ti", 6.71, 4.68}, Derived{"vit-s", 14.1, 11.6}, Derived{"vit-b", 42.4, 39.4},
                           Derived{"vit-l", 142.3, 134.3}}) {
    INFO(d.preset);
    VitConfig c = vit16(d.preset);
    c.narrow_last = false;
    const std::vector<Operation> all = training_step(shape_of(c, 256, true));
    CHECK(1e3 * totals(all, kH100).seconds == doctest::Approx(d.h100_ms).epsilon(0.02));
    CHECK(1e3 * totals(all, kH200).seconds == doctest::Approx(d.h200_ms).epsilon(0.02));
  }
  const std::vector<Operation> b = training_step(shape_of(vit16("vit-b"), 256, true));
  CHECK(1e3 * floor_seconds(find(b, Pass::update, "AdamW"), kH100) +
            1e3 * floor_seconds(find(b, Pass::update, "gradient norm"), kH100) ==
        doctest::Approx(0.87).epsilon(0.01));
  CHECK(1e3 * floor_seconds(find(b, Pass::forward, "attention"), kH100) / 12 == doctest::Approx(0.103).epsilon(0.02));
  CHECK(1e3 * floor_seconds(find(b, Pass::forward, "qkv"), kH100) / 12 == doctest::Approx(0.226).epsilon(0.01));
}

TEST_CASE("explain: ARROW reads its window twice and writes the new column") {
  StepShape s = shape_of(vit16("vit-b"), 256, true);
  s.method = parse_method("arrow:window=8");
  const std::vector<Operation> all = training_step(s);
  const double own = 4 * 4 * 768.0 * 768.0;
  const Operation &observe = find(all, Pass::update, "ARROW: observe"), &step = find(all, Pass::update, "ARROW: step");
  CHECK(observe.bytes == 2 * (1 + 1 + 8) * own);  // bf16: gradient, new column, window
  CHECK(step.bytes == (2 * 8 + 8 + 2) * own);     // window; weights read and written, working copy
  CHECK(optimizer_bytes(s) == 8.0 * double(s.vit.parameter_count()) + 2 * 9 * own);
}

TEST_CASE("explain: the traffic of any other rule follows from what it keeps per weight") {
  StepShape s = shape_of(vit16("vit-b"), 256, false);  // bf16 activations, fp32 gradients
  const double all = double(s.vit.parameter_count());
  struct Rule {
    const char *method, *row;
    double moments;
  };
  for (const Rule& r : {Rule{"adamw", "AdamW", 2}, Rule{"adam", "rule: adam", 2}, Rule{"sgd", "SGD", 1},
                        Rule{"sgd:momentum=0", "SGD", 0}, Rule{"upgd", "rule: upgd", 1}}) {
    CAPTURE(std::string(r.method));
    s.method = parse_method(r.method);
    const std::vector<Operation> rows = training_step(s);
    // Gradient read; weight and moments read and written; the bf16 copy written.
    CHECK(find(rows, Pass::update, r.row).bytes == (4 + 8 * (1 + r.moments) + 2) * all);
    CHECK(optimizer_bytes(s) == 4 * r.moments * all);
  }
  for (const auto& refused : std::vector<std::pair<std::string, std::string>>{{"muon", "products of matrices"},
                                                                              {"norm-control", "numbers per weight"},
                                                                              {"adamw+l2init", "--method adamw"},
                                                                              {"arrow+nap", "--method arrow"}}) {
    CAPTURE(refused.first);
    s.method = parse_method(refused.first);
    std::string text = "no error";
    try {
      training_step(s);
    } catch (const Error& e) { text = e.what(); }
    CHECK(contains(text, refused.second));
    CHECK(contains(text, "known are"));
  }
}

TEST_CASE("explain: what forward keeps is what the pool holds after it, and the peak is the plan's") {
  set_num_threads(1);
  // Powers of two, so that the pool's size classes round nothing up; what is left are blocks of less than 4 KiB.
  TrainerConfig c;
  c.vit = vit_config("vit-ti", 16, 4, 64, 3, 4);
  c.vit.class_token = false, c.vit.classes = 64;
  c.device = kCpu, c.method = parse_method("adamw");
  c.mean = {0.5, 0.5, 0.5}, c.stddev = {0.25, 0.25, 0.25};
  const std::int64_t batch = 64;
  Trainer trainer(c);
  const Tensor images = Tensor::zeros({batch, 3, 16, 16}, DType::u8, kCpu);
  const Tensor labels = Tensor::zeros({batch}, DType::i32, kCpu);
  const double before = double(pool(kCpu).bytes_live());
  pool(kCpu).reset_peak();
  double held = 0.0;
  {
    Tape tape;
    const Watched watched(tape, trainer.model(), false);
    const Tensor loss = cross_entropy(forward(trainer.model(), images, trainer.context(true)), labels, {}, {});
    held = double(pool(kCpu).bytes_live()) - before;
    backward(tape, loss);
  }
  const double peak = double(pool(kCpu).bytes_peak()) - before;
  const double kept = totals(training_step(shape_of(c.vit, batch)), kH100).kept;
  INFO("kept ", kept, ", held ", held, ", peak ", peak);
  CHECK(held == doctest::Approx(kept).epsilon(0.02));
  CHECK(peak == doctest::Approx(c.vit.activation_bytes(batch)).epsilon(0.03));
}

TEST_CASE("explain: the command prints a table of 120 columns with every row explained, and the same numbers as JSON") {
  const TemporaryFolder folder;
  const auto file = folder / "explain.json";
  const Ended e =
      evergrad({"explain", "--model", "vit-b", "--image-size", "224", "--batch", "256", "--device", "cuda:0",
                "--method", "arrow", "--tflops", "790", "--gbps", "3000", "--json", file.string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const char* part : {"224/16", "86567656 parameters", "1000 classes", "qkv", "attention", "fc1 + GELU", "AdamW",
                           "ARROW: observe", "at most", "FLOP/B", "Columns", "What the operations do"})
    CHECK_MESSAGE(contains(e.out, part), part);
  std::istringstream lines(e.out);
  std::size_t row = 0;
  for (std::string line; std::getline(lines, line); ++row)
    if (row > 0) CHECK_MESSAGE(line.size() <= 120, line);
  const nlohmann::json j = json_of(file);
  double sum = 0.0;
  for (const auto& o : j.at("operations")) sum += o.at("floor_ms").get<double>();
  CHECK(j.at("totals").at("floor_ms").get<double>() == doctest::Approx(sum));
  CHECK(j.at("totals").at("parameters") == 86567656);
  // Its own ceilings back in give its own floor.
  const auto second = folder / "second.json";
  REQUIRE(evergrad({"explain", "--model", "vit-b", "--image-size", "224", "--batch", "256", "--device", "cuda:0",
                    "--method", "arrow", "--ceilings", file.string(), "--json", second.string(), "--no-legend"})
              .code == 0);
  CHECK(json_of(second).at("totals") == j.at("totals"));
}

TEST_CASE("explain: a bench result shows the distance to the floor; another step's is refused") {
  const TemporaryFolder folder;
  const auto bench = folder / "bench.json", file = folder / "explain.json";
  const Args model = {"--dim",   "16", "--depth",     "1",    "--heads",   "1",
                      "--batch", "4",  "--precision", "fp32", "--threads", "1"};
  REQUIRE(evergrad(Args{"bench", "--step", "--steps", "2", "--json", bench.string()} + model).code == 0);
  CHECK(json_of(bench).at("loader").at("images_per_second") > 0.0);
  const auto step = json_of(bench).at("steps").at(0);
  CHECK(step.at("p95_ms").get<double>() >= step.at("ms").get<double>());
  const Ended e = evergrad(Args{"explain", "--bench", bench.string(), "--json", file.string()} + model);
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(contains(e.out, "measured, adamw"));
  CHECK(contains(e.out, "times the floor"));
  CHECK(json_of(file).at("measured").size() == 2);
  check_refused(evergrad(Args{"explain", "--bench", bench.string()} + model + Args{"--batch", "8"}), 2,
                {"another step", "batch 4", "batch 8"});
  write_file(folder / "bad.json", "{\"ceilings\": {\"gflops\": \"many\"}}");
  write_file(folder / "cut.json", "{\"ceilings\": ");
  check_refused(evergrad({"explain", "--ceilings", (folder / "bad.json").string()}), 1, {"bad.json", "ceilings"});
  check_refused(evergrad({"explain", "--ceilings", (folder / "cut.json").string()}), 1, {"cut.json"});
  check_refused(evergrad({"explain", "--ceilings", (folder / "none.json").string()}), 1, {"none.json"});
  check_refused(evergrad({"explain", "--tflops", "1"}), 2, {"--gbps"});
  check_refused(evergrad({"explain", "--method", "muon"}), 2, {"muon", "adamw"});
  check_refused(evergrad({"explain", "--trace", "--batch", "3"}), 2, {"--batch", "--trace"});
}

TEST_CASE("explain --trace: the same digits on every run, and one step that hangs together") {
  const TemporaryFolder folder;
  const auto file = folder / "trace.json";
  const Ended first = evergrad({"explain", "--trace", "--json", file.string()});
  // Whatever instruction set is asked for, also one that this machine does not have: the digits are everybody's.
  REQUIRE(::setenv("EVERGRAD_CPU", "avx512", 1) == 0);
  const Ended second = evergrad({"explain", "--trace"});
  ::unsetenv("EVERGRAD_CPU");
  INFO(first.all());
  REQUIRE(first.code == 0);
  CHECK(first.out == second.out);
  const nlohmann::json t = json_of(file);
  double p = 0.0;
  for (const double x : t.at("loss").at("probabilities")) p += x;
  CHECK(p == doctest::Approx(1.0));
  const std::size_t label = t.at("loader").at("label");
  CHECK(t.at("loss").at("loss of this image").get<double>() ==
        doctest::Approx(-std::log(t.at("loss").at("probabilities").at(label).get<double>())));
  // The gradient's length is that of its groups together.
  double squares = 0.0;
  for (const char* group : {"block 1", "block 0", "embedding, last norm, head"})
    squares += std::pow(t.at("backward").at(group).get<double>(), 2);
  CHECK(t.at("backward").at("length of the whole gradient").get<double>() ==
        doctest::Approx(std::sqrt(squares)).epsilon(1e-6));
  // The Gram matrix' diagonal is the newest gradient's square, the combination's length follows from nothing else.
  const auto& arrow = t.at("ARROW");
  CHECK(arrow.at("Gram row: newest with newest .. oldest").at(0).get<double>() ==
        doctest::Approx(std::pow(arrow.at("length of the newest gradient").get<double>(), 2)).epsilon(1e-6));
}
