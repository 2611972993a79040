// tests/apps/test_predict.cpp - what a network answers, where its answer comes from, and what cannot be read.
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "apps/diagnosis/attention_flow.h"
#include "apps/predict/network.h"
#include "apps/report/chart.h"
#include "autograd/functions.h"
#include "data/preview.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {

/// Random distributions over n tokens for every head.
AttentionMaps random_maps(std::int64_t heads, std::int64_t n, unsigned seed) {
  std::minstd_rand random(seed);
  AttentionMaps m{1, heads, n, {}, std::vector<double>(std::size_t(heads), 0.0)};
  for (std::int64_t row = 0; row < heads * n; ++row) {
    std::vector<double> p;
    double total = 0.0;
    for (std::int64_t k = 0; k < n; ++k) p.push_back(0.1 + double(random() % 1000)), total += p.back();
    for (const double x : p) m.p.push_back(x / total);
  }
  return m;
}
std::vector<double> random_numbers(std::size_t count, unsigned seed) {
  std::minstd_rand random(seed);
  std::vector<double> v(count);
  for (double& x : v) x = double(random() % 2001) / 1000.0 - 1.0;
  return v;
}

using Matrix = std::vector<std::vector<double>>;
Matrix times(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(a.size(), 0.0));
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t k = 0; k < a.size(); ++k)
      for (std::size_t j = 0; j < a.size(); ++j) c[i][j] += a[i][k] * b[k][j];
  return c;
}
/// keep I + share x mean over heads of weight(h, q, k).
template <class Weight>
Matrix mixed(std::int64_t heads, std::size_t n, double keep, double share, const Weight& weight) {
  Matrix a(n, std::vector<double>(n, 0.0));
  for (std::size_t q = 0; q < n; ++q) {
    a[q][q] = keep;
    for (std::size_t k = 0; k < n; ++k)
      for (std::int64_t h = 0; h < heads; ++h)
        a[q][k] += share * weight((std::size_t(h) * n + q) * n + k) / double(heads);
  }
  return a;
}

struct Trained {
  TemporaryFolder folder;
  std::string run = (folder / "run").string();
  explicit Trained(bool stream = false) {
    const Ended e = stream ? evergrad(tiny_continual(run) + Args{"--tasks", "2"}) : evergrad(tiny_train(run));
    INFO(e.all());
    REQUIRE(e.code == 0);
  }
};

}  // namespace

TEST_CASE("attention flow: rollout and relevance are the products of whole matrices, row by row") {
  constexpr std::int64_t heads = 3, n = 7, prefix = 2;
  const std::vector<AttentionMaps> blocks{random_maps(heads, n, 1), random_maps(heads, n, 2), random_maps(heads, n, 3)};
  std::vector<std::vector<double>> slopes;
  for (unsigned b = 0; b < 3; ++b) slopes.push_back(random_numbers(std::size_t(heads * n * n), 10 + b));
  Matrix rollout(n, std::vector<double>(n, 0.0)), relevance = rollout;
  for (std::size_t i = 0; i < n; ++i) rollout[i][i] = relevance[i][i] = 1.0;
  for (std::size_t b = 0; b < 3; ++b) {
    rollout = times(mixed(heads, n, 0.5, 0.5, [&](std::size_t i) { return blocks[b].p[i]; }), rollout);
    relevance =
        times(mixed(heads, n, 1.0, 1.0, [&](std::size_t i) { return std::max(0.0, blocks[b].p[i] * slopes[b][i]); }),
              relevance);
  }
  for (const Readout readout : {Readout{true, prefix}, Readout{false, prefix}, Readout{false, prefix, 2}}) {
    // The rows whose mean the head reads: the class token's, the patches', the first two of prompts.
    const std::size_t first = readout.class_token || readout.prompts ? 0 : prefix;
    const std::size_t last = readout.class_token ? 1 : readout.prompts ? 2 : n;
    const std::vector<double> a = attention_rollout(blocks, readout), r = attention_relevance(blocks, slopes, readout);
    REQUIRE(a.size() == n - prefix);
    for (std::size_t k = 0; k < a.size(); ++k) {
      double expected_a = 0.0, expected_r = 0.0;
      for (std::size_t q = first; q < last; ++q)
        expected_a += rollout[q][k + prefix] / double(last - first),
            expected_r += relevance[q][k + prefix] / double(last - first);
      CHECK(a[k] == doctest::Approx(expected_a).epsilon(1e-12));
      CHECK(r[k] == doctest::Approx(expected_r).epsilon(1e-12));
    }
  }
  CHECK_THROWS_AS(attention_rollout({}, {}), Error);
  CHECK_THROWS_AS(attention_relevance(blocks, std::span(slopes).first(2), {}), Error);
}

TEST_CASE("attention flow: the gradient of attention is that of what it mixes") {
  constexpr std::int64_t n = 5, heads = 2, width = 3;
  const std::vector<double> qkv = random_numbers(n * 3 * heads * width, 1), dout = random_numbers(n * heads * width, 2);
  const std::vector<double> slope = attention_gradient(qkv, dout, 1, n, heads);
  // out = A v, by head; a change dA changes the logit by <dout, dA v>, which must be <slope, dA>.
  const std::vector<double> change = random_numbers(std::size_t(heads * n * n), 3);
  double by_output = 0.0, by_attention = 0.0;
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t q = 0; q < n; ++q)
      for (std::int64_t k = 0; k < n; ++k) {
        const double d = change[std::size_t((h * n + q) * n + k)];
        by_attention += slope[std::size_t((h * n + q) * n + k)] * d;
        for (std::int64_t c = 0; c < width; ++c)
          by_output += dout[std::size_t((q * heads + h) * width + c)] * d *
                       qkv[std::size_t(k * 3 * heads * width + 2 * heads * width + h * width + c)];
      }
  CHECK(by_attention == doctest::Approx(by_output).epsilon(1e-12));
  CHECK_THROWS_AS(attention_gradient(qkv, std::span(dout).first(7), 1, n, heads), Error);
}

TEST_CASE("vit: the gradient at a watched zero is the slope of a logit along what attention mixed") {
  VitConfig c = vit_config("vit-ti", 8, 4, 8, 2, 2);
  c.classes = 3, c.precision = DType::f64;
  Vit model = make_vit(c);
  ParamArena arena;
  arena.build(parameters(model), kReference, DType::f64);
  arena.initialise(parameters(model), 5);
  const std::vector<double> pixels(3 * 8 * 8, 0.3);
  const Tensor image = Tensor::from(random_numbers(3 * 8 * 8, 4), {1, 3, 8, 8}, DType::f64, kReference);
  const Shape shape{1, c.tokens(), c.dim};
  const std::vector<double> direction = random_numbers(std::size_t(shape.size()), 6);
  for (const int block : {0, 1}) {
    const auto logit = [&](double step, Tape* tape, Tensor& zero) {
      std::vector<double> moved = direction;
      for (double& x : moved) x *= step;
      const Tensor shift = Tensor::from(moved, shape, DType::f64, kReference);
      VitProbe probe;
      probe.mixed = [&](int b, const Tensor& mixed) { return b == block ? add(mixed, tape ? zero : shift) : mixed; };
      VitContext context;
      context.probe = &probe;
      return forward(model, image, context);
    };
    Tape tape;
    Tensor zero = Tensor::zeros(shape, DType::f64, kReference), arrived = Tensor::zeros(shape, DType::f64, kReference);
    tape.watch(zero, arrived.view());
    const std::vector<Tensor> outputs{logit(0.0, &tape, zero)};
    const std::vector<double> one{0.0, 1.0, 0.0};
    const std::vector<Tensor> gradients{Tensor::from(one, {1, 3}, DType::f64, kReference)};
    backward(tape, outputs, gradients);
    double slope = 0.0;
    const std::vector<double> g = arrived.to_host();
    for (std::size_t i = 0; i < g.size(); ++i) slope += g[i] * direction[i];
    constexpr double h = 1e-5;  // a central difference's error is of order h^2
    const double up = logit(h, nullptr, zero).to_host()[1], down = logit(-h, nullptr, zero).to_host()[1];
    CHECK(slope == doctest::Approx((up - down) / (2 * h)).epsilon(1e-7));
    CHECK(std::abs(slope) > 1e-6);
  }
}

TEST_CASE("predict: test images get the answers that eval counts, for train and for continual") {
  for (const bool stream : {false, true}) {
    INFO("stream ", stream);
    const Trained t(stream);
    const Ended e = evergrad({"predict", "--checkpoint", t.run, "--test-images", "20", "--threads", "1"});
    INFO(e.all());
    REQUIRE(e.code == 0);
    const Ended tested = evergrad({"eval", "--checkpoint", t.run, "--precision", "fp32"});
    REQUIRE(tested.code == 0);
    const std::size_t at = e.out.find(" of 20 test images are right");
    REQUIRE(at != std::string::npos);
    const std::size_t line = e.out.rfind('\n', at) + 1;
    const int right = std::stoi(e.out.substr(line, at - line));
    const std::string share = std::to_string(5 * right);  // of 20, in percent
    CHECK_MESSAGE(contains(tested.out, share + ".00"), tested.out, " does not say ", share, "%");
  }
}

TEST_CASE("predict, eval: the reference device opens what the cpu wrote in single precision, and answers alike") {
  for (const bool stream : {false, true}) {
    INFO("stream ", stream);
    const Trained t(stream);
    const Args machine = {"--threads", "1", "--precision", "fp32"}, exact = {"--device", "reference"};
    const Args ask = Args{"predict", "--checkpoint", t.run, "--test-images", "6", "--json", "-"} + machine;
    const Ended single = evergrad(ask), both = evergrad(ask + exact);
    INFO(both.all());
    REQUIRE(single.code == 0);
    REQUIRE(both.code == 0);
    const auto one = nlohmann::json::parse(single.out).at("images"), two = nlohmann::json::parse(both.out).at("images");
    for (std::size_t i = 0; i < 6; ++i) {
      const double p = one[i].at("top")[0].at("probability"), q = two[i].at("top")[0].at("probability");
      CHECK(p == doctest::Approx(q).epsilon(1e-4));  // a block of width 16 in fp32 rounds to about 1e-6
      CHECK(p != q);                                 // it did compute in another precision
    }
    const Args eval = Args{"eval", "--checkpoint", t.run} + machine;
    const Ended slow = evergrad(eval + exact);
    INFO(slow.all());
    CHECK(slow.code == 0);
  }
}

TEST_CASE("predict: an image file gives what the same pixels gave; a broken one is named and stops nothing") {
  const Trained t;
  const auto json = t.folder / "p.json", png = t.folder / "a.png", bad = t.folder / "b.jpg",
             gone = t.folder / "gone.png";
  // The run's second test image as a file.
  TrainedNetwork n = open_network(t.run, "", {"--threads=1"});
  std::vector<std::uint8_t> pixels(std::size_t(n.format.bytes()));
  n.data()->image(Split::test, n.task.test.indices[10], n.format, pixels.data());
  Canvas canvas(8, 8);
  canvas.draw({pixels.data(), 3, 8, 8}, 0, 0, 1);
  canvas.write_png(png);
  write_file(bad, "\xff\xd8\xff\xe0 no picture");
  const Ended e = evergrad({"predict", "--checkpoint", t.run, bad.string(), png.string(), gone.string(),
                            "--test-images", "2", "--top", "9", "--threads", "1", "--json", json.string()});
  INFO(e.all());
  CHECK(e.code == 1);
  CHECK(contains(e.err, "b.jpg"));
  CHECK(contains(e.err, "gone.png"));
  CHECK(contains(e.out, "a.png"));
  const nlohmann::json images = json_of(json).at("images");
  REQUIRE(images.size() == 5);
  CHECK(contains(images[0].at("error").get<std::string>(), "b.jpg"));
  CHECK_FALSE(images[0].contains("top"));
  CHECK(images[1].at("top") == images[4].at("top"));
  CHECK_FALSE(images[1].contains("label"));
  CHECK(images[4].contains("label"));
  double sum = 0.0, last = 1.0;
  REQUIRE(images[1].at("top").size() == 3);  // of three classes
  for (const auto& c : images[1].at("top")) {
    const double p = c.at("probability");
    CHECK(p <= last);
    CHECK(c.at("name").get<std::string>() != std::to_string(c.at("class").get<int>()));
    sum += p, last = p;
  }
  CHECK(sum == doctest::Approx(1.0));
}

TEST_CASE("predict: the attention sheet is a PNG, and its maps are distributions") {
  const Trained t(true);
  const auto sheet = t.folder / "sheet.png", json = t.folder / "maps.json";
  const Args ask{"predict", "--checkpoint", t.run,         "--test-images", "2", "--threads",
                 "1",       "--attention",  sheet.string()};
  if (!why_no_charts().empty()) {
    check_refused(evergrad(ask), 2, {"cairo"});
    MESSAGE("SKIPPED: this build has no cairo");
    return;
  }
  const Ended e = evergrad(ask + Args{"--json", json.string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(read_file(sheet).substr(0, 8) == "\x89PNG\r\n\x1a\n");
  for (const auto& image : json_of(json).at("images")) {
    const auto& a = image.at("attention");
    REQUIRE(a.at("heads").size() == 1);
    for (const auto& map : {a.at("heads")[0], a.at("rollout")}) {
      REQUIRE(map.size() == 4);  // 8 pixels, patches of 4
      double sum = 0.0;
      for (const double x : map) sum += x;
      CHECK(sum > 0.0);
      CHECK(sum < 1.0);  // the class token takes the rest
    }
    for (const double x : a.at("relevance")) CHECK(x >= 0.0);
  }
  const std::string first = read_file(sheet);
  REQUIRE(evergrad(ask).code == 0);
  CHECK(read_file(sheet) == first);
  check_refused(evergrad(ask + Args{"--block", "1"}), 2, {"--block 1", "0 to 0"});
  check_refused(evergrad(ask + Args{"--block", "-2"}), 2, {"--block -2"});
  // Nothing to draw: a message, no file.
  std::filesystem::remove(sheet);
  const Ended none =
      evergrad({"predict", "--checkpoint", t.run, (t.folder / "no.png").string(), "--attention", sheet.string()});
  CHECK(none.code == 1);
  CHECK(contains(none.err, "is not written"));
  CHECK_FALSE(contains(none.out, "attention sheet"));
  CHECK_FALSE(contains(none.out, "probability"));
  CHECK_FALSE(std::filesystem::exists(sheet));
}

TEST_CASE("predict: what a person must change is said, with the remedy") {
  const Trained t;
  check_refused(evergrad({"predict", "--checkpoint", t.run}), 2, {"--test-images"});
  check_refused(evergrad({"predict", "--checkpoint", t.run, "--test-images", "9999"}), 2, {"9999", "20"});
  check_refused(evergrad({"predict", "--checkpoint", (t.folder / "none").string(), "a.png"}), 2, {"none", "--config"});
  check_refused(evergrad({"predict", "a.png"}), 2, {"--checkpoint"});
  const auto config = (t.folder / "alone.toml").string();
  std::filesystem::copy(t.run + "/config.toml", config);
  check_refused(evergrad({"predict", "--checkpoint", (t.folder / "none").string(), "--config", config, "a.png"}), 1,
                {"none"});
}

TEST_CASE("predict: maps start at what the head reads: the class token, the patches, or the prompts") {
  const TemporaryFolder folder;
  const auto readout = [&](const char* name, const Args& args) {
    const std::string out = (folder / name).string();
    const Ended e = evergrad(args + Args{"--stream",      "procedural", "--image-size", "8", "--patch", "4",
                                         "--dim",         "16",         "--depth",      "1", "--heads", "2",
                                         "--train-limit", "16",         "--test-limit", "8", "--batch", "8",
                                         "--epochs",      "1",          "--threads",    "1", "--out",   out});
    INFO(e.all());
    REQUIRE(e.code == 0);
    return open_network(out, "", {"--threads=1"}).readout();
  };
  CHECK(readout("token", {"train"}).class_token);
  const Readout beside = readout("beside", {"train", "--pool", "mean-with-token"});
  CHECK_FALSE(beside.class_token);
  CHECK(beside.prefix == 1);
  CHECK(readout("l2p",
                {"continual", "--tasks", "1", "--classes-per-task", "2", "--methods", "l2p:pool=5:length=2:select=2"})
            .prompts == 4);
}
