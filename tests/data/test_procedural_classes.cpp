// tests/data/test_procedural_classes.cpp - the procedural classes can be told apart, by what compares pixels.
#include <algorithm>
#include <cmath>

#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;

namespace {

constexpr int kSize = 32, kReach = 6, kClasses = 4;

/// Autocorrelation at lags up to kReach: blind to brightness, contrast, position, and to which of figure and ground is
/// the brighter. Pixels enter only through products of two, so nothing here is linear in the image.
std::vector<double> correlations(const Dataset& d, Split split, std::int64_t i) {
  const std::vector<std::uint8_t> image = pixels(d, split, i, {1, kSize});
  double mean = 0.0, variance = 0.0;
  for (const double v : image) mean += v / double(image.size());
  for (const double v : image) variance += (v - mean) * (v - mean) / double(image.size());
  std::vector<double> features;
  for (int dy = 0; dy <= kReach; ++dy)
    for (int dx = dy ? -kReach : 1; dx <= kReach; ++dx) {
      double sum = 0.0;
      const int left = std::max(0, -dx), right = std::min(kSize, kSize - dx);
      for (int y = 0; y + dy < kSize; ++y)
        for (int x = left; x < right; ++x)
          sum += (image[std::size_t(y * kSize + x)] - mean) * (image[std::size_t((y + dy) * kSize + x + dx)] - mean);
      features.push_back(sum / (double(kSize - dy) * (right - left)) / std::max(1.0, variance));
    }
  return features;
}

/// Share of test images whose nearest neighbours among the training images, nine by vote, are of their class.
double neighbour_accuracy(const Dataset& d) {
  std::vector<std::vector<double>> known;
  for (std::int64_t i = 0; i < d.size(Split::train); ++i) known.push_back(correlations(d, Split::train, i));
  double right = 0.0;
  for (std::int64_t i = 0; i < d.size(Split::test); ++i) {
    const std::vector<double> f = correlations(d, Split::test, i);
    std::vector<std::pair<double, std::int32_t>> near;
    for (std::size_t j = 0; j < known.size(); ++j) {
      double distance = 0.0;
      for (std::size_t k = 0; k < f.size(); ++k) distance += (f[k] - known[j][k]) * (f[k] - known[j][k]);
      near.emplace_back(distance, d.label(Split::train, std::int64_t(j)));
    }
    std::partial_sort(near.begin(), near.begin() + 9, near.end());
    std::vector<int> votes(kClasses);
    for (std::size_t j = 0; j < 9; ++j) ++votes[std::size_t(near[j].second)];
    right += std::max_element(votes.begin(), votes.end()) - votes.begin() == d.label(Split::test, i);
  }
  return right / double(d.size(Split::test));
}

}  // namespace

TEST_CASE("procedural: classes that no linear classifier finds are found by comparing neighbouring pixels") {
  double mean = 0.0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    ProceduralOptions o;
    o.seed = seed, o.classes = kClasses, o.train_per_class = 150, o.test_per_class = 60;
    mean += neighbour_accuracy(*make_procedural(o)) / 4;
  }
  CHECK(mean > 0.85);  // chance is 0.25; softmax regression on the pixels stays there (test_procedural.cpp)
}
