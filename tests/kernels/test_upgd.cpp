// tests/kernels/test_upgd.cpp - the update of UPGD.
#include <cmath>

#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"upgd_update"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);
constexpr double kClip = 0.6, kBeta = 0.9;

/// Gaps, an empty segment, one of several chunks, and slots of different age; many: more than one launch carries.
std::vector<Segment> segments_of(std::int64_t size, bool many) {
  if (size < 100) return {{0, size, 1, 1.0f, 0.05f}};
  const std::int64_t third = size / 3;
  std::vector<Segment> all{{0, 1, 1, 1.0f, 0.0f}, {3, 3, 1, 1.0f, 0.0f}};
  for (std::int64_t i = 0; i < (many ? 120 : 0); ++i) all.push_back({5 + 2 * i, 6 + 2 * i, 1, 1.0f, 0.0f});
  all.push_back({many ? 250 : 5, third, 1, 0.5f, 0.05f}), all.push_back({third + 16, size - 7, 2, 1.0f, 0.0f});
  return all;
}

}  // namespace

TEST_CASE("upgd_update: agrees with the reference, whatever the sign of the utilities") {
  for (const std::int64_t size : {1, 31, 33, 197, 35001})
    for (int options = 0; options < 32; ++options) {
      const bool noisy = (options & 1) != 0, protects = (options & 2) != 0, work = (options & 4) != 0;
      const bool negative = (options & 8) != 0, narrow = (options & 16) != 0;
      const std::vector<Segment> segments = segments_of(size, size > 1000 && work);
      const double noise = noisy ? 0.3 : 0.0;
      EVERGRAD_CONFORMS(
          upgd_update, UpgdUpdate, cat(size, " options ", options), DType::f32,
          [&](Arguments& a) {
            a.step.seed = 11, a.step.step = 6, a.step.clip_scale = kClip;
            a.step.slot[1] = {0.1, 3}, a.step.slot[2] = {0.3, 1000};
            UpgdUpdate p;
            // All utilities negative: the guard keeps the gate the right way round, and it is wide open.
            p.weight = a.typed("weight", DType::f32, {size}, negative ? between(0.5, 2.0) : normal(1.0), Use::added);
            p.grad = a.typed("grad", gradient_type(narrow), {size}, negative ? between(0.5, 2.0) : normal(1.0));
            p.utility =
                a.typed("utility", DType::f32, {size}, negative ? between(-2.0, -0.5) : normal(0.5), Use::added);
            if (work) p.work = a.out("work", DType::bf16, {size}, true);
            p.segments = segments, p.step = a.step_record(), p.stream = 77;
            p.beta = kBeta, p.noise = noise, p.protects = protects;
            return p;
          },
          [&](const Values& in, const Values& exact) {
            // A utility is a product of three rounded factors and a sum; the largest is off by no more than the worst.
            Vector e(std::size_t(size), 0.0);
            double largest = kUpgdLeastMaximum, worst = u * largest;
            for (const Segment& s : segments)
              for (std::size_t i = std::size_t(s.begin); i < std::size_t(s.end); ++i) {
                const double now = (1.0 - kBeta) * kClip * std::abs(in.at("grad")[i] * in.at("weight")[i]);
                e[i] = 3.0 * u * std::abs(kBeta * in.at("utility")[i]) + 6.0 * u * now;
                largest = std::max(largest, exact.at("utility")[i]), worst = std::max(worst, e[i] + u * largest);
              }
            // What largest may be: between these two. Where no utility is near zero the guard itself is exact.
            const double least = largest == kUpgdLeastMaximum ? largest : largest - worst;
            Values bounds{{"utility", e}, {"weight", Vector(std::size_t(size), 0.0)}};
            for (const Segment& s : segments) {
              const double corrected = 1.0 - std::pow(kBeta, s.slot == 1 ? 4.0 : 1001.0);
              const double lr = (s.slot == 1 ? 0.1 : 0.3) * double(s.lr_scale);
              for (std::size_t i = std::size_t(s.begin); i < std::size_t(s.end); ++i) {
                const double utility = exact.at("utility")[i], x = utility / corrected / largest;
                const double dx = e[i] / corrected / least + std::abs(x) * ((largest - least) / least + 5.0 * u);
                const double open = 1.0 / (1.0 + std::exp(x));
                // The gate falls: its values at both ends of the argument, the error of e^x (2 ulp), a sum, a quotient.
                const double de = 1.0 / (1.0 + std::exp(x - dx)) - 1.0 / (1.0 + std::exp(x + dx)) + 6.0 * u * open;
                const double d = kClip * std::abs(in.at("grad")[i]), n = 6.0 * noise;  // |n| < 6, as in weight_perturb
                const double move = protects ? (d + n) * de + (5.0 * u * (d + n) + 20.0 * u * n) * open
                                             : n * de + 3.0 * u * d + 24.0 * u * n * open;
                const double step = protects ? (d + n) * open : d + n * open;
                bounds["weight"][i] = 4.0 * u * std::abs(in.at("weight")[i]) + lr * (move + 4.0 * u * step);
              }
            }
            if (work) {
              bounds["work"] = bounds["weight"];
              for (std::size_t i = 0; i < bounds["work"].size(); ++i)
                bounds["work"][i] += stored(exact.at("weight")[i], DType::f32);
            }
            return bounds;
          });
    }
}

TEST_CASE("upgd_update: a step with a gradient that is not finite changes no bit") {
  for (const bool exact : {false, true}) {
    Arguments a(DType::f32, exact);
    a.step.finite = 0;
    a.step.slot[0] = {0.1, 3};
    const std::vector<Segment> segments{{0, 40, 0, 1.0f, 0.1f}};
    UpgdUpdate p;
    p.weight = a.out("weight", DType::f32, {40}, true), p.utility = a.out("utility", DType::f32, {40}, true);
    p.grad = a.stat("grad", {40}), p.segments = segments, p.step = a.step_record();
    const std::vector<std::byte> before = a.bytes();
    a.run(&KernelTable::upgd_update, p);
    CHECK(a.bytes() == before);
  }
}

}  // namespace eg::test
