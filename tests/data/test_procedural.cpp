// tests/data/test_procedural.cpp - the embedded data set: deterministic, unlimited, and hard for a linear classifier.
#include <algorithm>
#include <cmath>
#include <set>

#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;

namespace {

std::shared_ptr<const Dataset> procedural(std::uint64_t seed, int train = 150, int test = 60) {
  ProceduralOptions o;
  o.seed = seed, o.classes = 4, o.train_per_class = train, o.test_per_class = test;
  return std::shared_ptr<const Dataset>(make_procedural(o));
}

/// Two flat greys with noise: any linear classifier separates them.
class Easy : public Dataset {
 public:
  explicit Easy(std::shared_ptr<const Dataset> d) : d_(std::move(d)) {}
  std::string name() const override { return "easy"; }
  int classes() const override { return 4; }
  std::string class_name(int) const override { return "grey"; }
  std::int64_t size(Split s) const override { return d_->size(s); }
  std::int32_t label(Split s, std::int64_t i) const override { return d_->label(s, i); }
  std::vector<std::int64_t> indices_of(Split s, int c) const override { return d_->indices_of(s, c); }
  void image(Split s, std::int64_t i, ImageFormat f, std::uint8_t* out) const override {
    d_->image(s, i, f, out);
    for (std::int64_t k = 0; k < f.bytes(); ++k) out[k] = std::uint8_t(out[k] / 2 + (k % 4 == label(s, i) ? 100 : 0));
  }
  ImageFormat native() const override { return d_->native(); }

 private:
  std::shared_ptr<const Dataset> d_;
};

/// Test accuracy of softmax regression on centred pixels after 60 passes of plain gradient descent.
double linear_accuracy(const Dataset& d) {
  const ImageFormat f{1, 16};
  const auto n = std::size_t(f.bytes());
  const auto input = [&](Split s, std::int64_t i) {
    std::vector<double> x;
    for (const double v : pixels(d, s, i, f)) x.push_back((v - 128) / 64);
    return x;
  };
  std::vector<std::vector<double>> w(4, std::vector<double>(n + 1, 0.0));
  const auto scores = [&](const std::vector<double>& x) {
    std::vector<double> z(4);
    for (std::size_t c = 0; c < 4; ++c) {
      z[c] = w[c][n];
      for (std::size_t k = 0; k < n; ++k) z[c] += w[c][k] * x[k];
    }
    return z;
  };
  std::vector<std::vector<double>> train;
  for (std::int64_t i = 0; i < d.size(Split::train); ++i) train.push_back(input(Split::train, i));
  for (int pass = 0; pass < 60; ++pass)
    for (std::size_t i = 0; i < train.size(); ++i) {
      std::vector<double> p = scores(train[i]);
      const double top = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& v : p) v = std::exp(v - top), sum += v;
      for (std::size_t c = 0; c < 4; ++c) {
        const double g = p[c] / sum - (int(c) == d.label(Split::train, std::int64_t(i)));
        for (std::size_t k = 0; k < n; ++k) w[c][k] -= 0.002 * g * train[i][k];
        w[c][n] -= 0.002 * g;
      }
    }
  double right = 0;
  for (std::int64_t i = 0; i < d.size(Split::test); ++i) {
    const std::vector<double> z = scores(input(Split::test, i));
    right += std::max_element(z.begin(), z.end()) - z.begin() == d.label(Split::test, i);
  }
  return right / double(d.size(Split::test));
}

}  // namespace

TEST_CASE("procedural: images are a function of seed, split and index") {
  const auto a = procedural(1), b = procedural(1), c = procedural(2);
  for (std::int64_t i = 0; i < 20; ++i) {
    const auto image = pixels(*a, Split::train, i, {3, 32});
    CHECK(image == pixels(*b, Split::train, i, {3, 32}));
    CHECK(image != pixels(*c, Split::train, i, {3, 32}));
    CHECK(image != pixels(*a, Split::test, i, {3, 32}));
    CHECK(image != pixels(*a, Split::train, i + 1, {3, 32}));
  }
  CHECK(a->size(Split::train) == 600);
  for (int k = 0; k < 4; ++k) CHECK(a->indices_of(Split::test, k).size() == 60);
}

TEST_CASE("procedural: two thousand million classes, any size, grey or colour") {
  ProceduralOptions o;
  o.classes = 2'000'000'000;
  const auto d = make_procedural(o);
  const auto indices = d->indices_of(Split::train, 1'999'999'999);
  CHECK(indices.size() == 500);
  CHECK(d->label(Split::train, indices[3]) == 1'999'999'999);
  for (const ImageFormat f : {ImageFormat{1, 1}, ImageFormat{3, 7}, ImageFormat{1, 64}})
    CHECK(pixels(*d, Split::train, indices[0], f).size() == std::size_t(f.bytes()));
  o.classes = 0;
  error_text(Kind::usage, [&] { make_procedural(o); });
}

TEST_CASE("procedural: softmax regression stays near chance, while it solves a set that is linear") {
  // Chance is 0.25. Over 4 x 240 test images its standard error is 0.014; four of them.
  double mean = 0.0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) mean += linear_accuracy(*procedural(seed)) / 4;
  CHECK(mean < 0.25 + 4 * 0.014);
  CHECK(linear_accuracy(Easy(procedural(3))) > 0.9);
}
