// tests/kernels/test_cross_entropy.cpp - loss, gradient and hits of a classifier's rows.
//
// With t = z - max and e = e^t: e is off by the share eta = u |t| + exp_error(); the sum of K of them by the mean of
// these shares and 4 sqrt(K) u, which is also the absolute error of L = log sum. p = e / sum carries both and two
// roundings. The loss adds L and products of targets with distances t; each of these is rounded a few times.
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"cross_entropy"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);

enum class Target { labels, soft };

struct Setup {
  std::int64_t batch, classes;
  Target target = Target::labels;
  bool mask = false;
  double smoothing = 0.0, scale = 1.0, spread = 2.0;
  bool loss = true, dlogits = true, correct = true;
};

/// Keeps every third class and class 0, unless there is only one.
bool allowed_class(const Setup& s, std::int64_t k) { return !s.mask || k % 3 == 0; }

/// Rows of positive numbers that sum to 1 up to their rounding, over allowed classes.
Draw soft_rows(const Setup& s) {
  double sum = 0.0;
  return [s, sum](const Key& k, std::int64_t i) mutable {
    const std::int64_t first = i / s.classes * s.classes;
    if (i == first) sum = 0.0;
    for (std::int64_t c = 0; i == first && c < s.classes; ++c)
      if (allowed_class(s, c)) sum += k.uniform(std::uint64_t(first + c));
    return allowed_class(s, i - first) ? k.uniform(std::uint64_t(i)) / sum : 0.0;
  };
}

CrossEntropy arguments(Arguments& a, const Setup& s) {
  CrossEntropy c;
  c.logits = a.x("logits", {s.batch, s.classes}, normal(s.spread));
  const std::int64_t choices = s.mask ? (s.classes + 2) / 3 : s.classes, step = s.mask ? 3 : 1;
  if (s.target == Target::labels)
    c.labels = a.typed("labels", DType::i32, {s.batch}, [=](const Key& k, std::int64_t i) {
      return double(step * std::int64_t(k.below(std::uint64_t(i), std::uint32_t(choices))));
    });
  else
    c.soft = a.stat("soft", {s.batch, s.classes}, soft_rows(s));
  if (s.mask)
    c.class_mask = a.typed("mask", DType::u8, {s.classes},
                           [&](const Key&, std::int64_t i) { return double(allowed_class(s, i)); });
  c.smoothing = s.smoothing, c.scale = s.scale;
  if (s.loss) c.loss = a.out("loss", DType::f32, {s.batch});
  if (s.dlogits) c.dlogits = a.x_out("dlogits", {s.batch, s.classes});
  if (s.correct) c.correct = a.out("correct", DType::i32, {s.batch});
  return c;
}

Values bounds_of(const Setup& s, const Values& in) {
  Values bounds;
  if (s.loss) bounds["loss"];
  if (s.dlogits) bounds["dlogits"];
  const auto K = std::size_t(s.classes);
  double count = 0.0;
  for (std::int64_t k = 0; k < s.classes; ++k) count += allowed_class(s, k);
  for (std::size_t row = 0; row < std::size_t(s.batch); ++row) {
    const double* const z = in.at("logits").data() + row * K;
    const double* const soft = s.target == Target::soft ? in.at("soft").data() + row * K : nullptr;
    const double label = soft ? -1.0 : in.at("labels")[row];
    double top = -HUGE_VAL, sum = 0.0, shares = 0.0, products = 0.0, weight = 0.0;
    for (std::size_t k = 0; k < K; ++k)
      if (allowed_class(s, std::int64_t(k))) top = std::max(top, z[k]);
    Vector p(K, 0.0), eta(K, 0.0), target(K, 0.0);
    for (std::size_t k = 0; k < K; ++k) {
      if (!allowed_class(s, std::int64_t(k))) continue;
      const double t = z[k] - top;
      p[k] = std::exp(t), eta[k] = u * std::abs(t) + exp_error();
      sum += p[k], shares += p[k] * eta[k];
      const double hard = soft ? soft[k] : double(double(k) == label);
      target[k] = (1.0 - s.smoothing) * hard + s.smoothing / count;
      products += target[k] * std::abs(t), weight += target[k];
    }
    const double share = shares / sum + sum_error(s.classes, 1.0), log_sum = std::log(sum);
    if (s.loss)
      bounds["loss"].push_back(weight * share + sum_error(s.classes + 1, products + weight * log_sum) +
                               4.0 * u * (products + weight * log_sum));
    for (std::size_t k = 0; s.dlogits && k < K; ++k) {
      const double q = p[k] / sum;
      bounds["dlogits"].push_back(std::abs(s.scale) * (q * (eta[k] + share + 3.0 * u) + 4.0 * u * (q + target[k])));
    }
  }
  return bounds;
}

void conforms_setup(DType t, const Setup& s, const std::string& label) {
  EVERGRAD_CONFORMS(
      cross_entropy, CrossEntropy, label, t, [&](Arguments& a) { return arguments(a, s); },
      [&](const Values& in, const Values&) { return bounds_of(s, in); });
}

}  // namespace

TEST_CASE("cross_entropy: agrees with the reference for labels and soft targets, masks and smoothing") {
  for_each_activation([](DType t) {
    const std::pair<std::int64_t, std::int64_t> sizes[] = {{0, 4},   {1, 1},    {5, 2},    {3, 10},   {2, 31},  {7, 32},
                                                           {4, 33},  {9, 100},  {197, 67}, {3, 1009}, {33, 65}, {65, 3},
                                                           {257, 2}, {1025, 2}, {2, 257},  {1, 1025}};
    for (const auto& [batch, classes] : sizes)
      for (const Target target : {Target::labels, Target::soft})
        for (const bool mask : {false, true})
          for (const double smoothing : {0.0, 0.1}) {
            if (batch > 1000 && mask != (smoothing > 0.0)) continue;
            conforms_setup(t, {batch, classes, target, mask, smoothing, smoothing > 0.0 ? 0.3 : 1.0},
                           cat(batch, " x ", classes, " soft ", int(target), " mask ", mask, " smoothing ", smoothing));
          }
  });
}

TEST_CASE("cross_entropy: every subset of its outputs gives the same numbers") {
  for_each_activation([](DType t) {
    for (int outputs = 0; outputs < 8; ++outputs)
      conforms_setup(
          t, {5, 33, Target::labels, true, 0.1, 0.25, 2.0, (outputs & 1) != 0, (outputs & 2) != 0, (outputs & 4) != 0},
          cat("outputs ", outputs));
  });
}

TEST_CASE("cross_entropy: logits of hundreds neither overflow nor lose the loss of a confident, right row") {
  for_each_activation([](DType t) {
    conforms_setup(t, {31, 33, Target::labels, false, 0.0, 1.0, 200.0}, "labels");
    conforms_setup(t, {31, 33, Target::soft, true, 0.1, 1.0, 200.0}, "soft");
  });
}

TEST_CASE("cross_entropy: among equal logits the first allowed one is the prediction") {
  for_each_activation([](DType t) {
    for (const std::int64_t label : {0, 1, 2, 3, 35})
      EVERGRAD_CONFORMS(
          cross_entropy, CrossEntropy, cat("label ", label), t,
          [&](Arguments& a) {
            CrossEntropy c;
            c.logits = a.x("logits", {1, 36}, [](const Key&, std::int64_t i) { return i >= 1 ? 2.0 : 1.0; });
            c.labels = a.typed("labels", DType::i32, {1}, constant(double(label)));
            c.class_mask =
                a.typed("mask", DType::u8, {36}, [](const Key&, std::int64_t i) { return i == 1 ? 0.0 : 1.0; });
            c.correct = a.out("correct", DType::i32, {1});
            return c;
          },
          [&](const Values&, const Values& exact) {
            CHECK(exact.at("correct")[0] == (label == 2 ? 1.0 : 0.0));
            return Values{};
          });
  });
}

TEST_CASE("cross_entropy: a label whose class is not allowed costs infinity and pulls at no class") {
  for_each_activation([](DType t) {
    for (const double smoothing : {0.0, 0.1})
      EVERGRAD_CONFORMS(
          cross_entropy, CrossEntropy, cat("smoothing ", smoothing), t,
          [&](Arguments& a) {
            Setup s{3, 33, Target::labels, true, smoothing};
            CrossEntropy c = arguments(a, s);
            c.labels = a.typed("excluded", DType::i32, {3}, constant(7.0));
            return c;
          },
          [&](const Values& in, const Values& exact) {
            CHECK(exact.at("loss")[0] == HUGE_VAL);
            Values bounds = bounds_of({3, 33, Target::labels, true, smoothing}, in);
            return bounds;
          });
  });
}

}  // namespace eg::test
