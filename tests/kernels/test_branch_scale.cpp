// tests/kernels/test_branch_scale.cpp - layer scale and stochastic depth of a branch, and the masks of the latter.
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"branch_scale_fwd", "branch_scale_bwd", "drop_mask"};
const std::vector<Shape> kShapes{{0, 4, 8},   {1, 1, 1},  {3, 7},     {2, 3, 31},  {5, 2, 32},  {4, 3, 33},
                                 {7, 67, 61}, {1, 33, 3}, {2, 65, 8}, {1, 257, 3}, {1, 1025, 8}};
const Draw kMask = integers(0, 2);

}  // namespace

TEST_CASE("branch_scale: forward agrees with the reference, with and without scale and mask") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kShapes)
      for (int options = 0; options < 4; ++options)
        EVERGRAD_CONFORMS(
            branch_scale_fwd, BranchScaleFwd, cat(shape, " options ", options), t,
            [&](Arguments& a) {
              BranchScaleFwd f;
              f.x = a.x("x", shape), f.y = a.x_out("y", shape);
              if (options & 1) f.scale = a.x("scale", {shape.cols()});
              if (options & 2) f.mask = a.stat("mask", {shape[0]}, kMask);
              return f;
            },
            [](const Values&, const Values& exact) {
              Values bounds{{"y", {}}};
              for (const double y : exact.at("y")) bounds["y"].push_back(elementwise_error(0.0, y));
              return bounds;
            });
  });
}

TEST_CASE("branch_scale: backward agrees with the reference for every set of options") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kShapes)
      for (int options = 0; options < 64; ++options) {
        const auto on = [&](int bit) { return (options >> bit & 1) != 0; };
        const bool with_dx = on(2), with_dscale = on(3), adds = on(4), adds_params = on(5);
        if (shape.size() > 1000 && options % 3) continue;
        if (!with_dx && !with_dscale) continue;
        EVERGRAD_CONFORMS(
            branch_scale_bwd, BranchScaleBwd, cat(shape, " options ", options), t,
            [&](Arguments& a) {
              BranchScaleBwd b;
              b.dy = a.x("dy", shape);
              if (with_dscale) b.x = a.x("x", shape);  // dx alone does not need it
              if (on(0)) b.scale = a.x("scale", {shape.cols()});
              if (on(1)) b.mask = a.stat("mask", {shape[0]}, kMask);
              if (with_dx) b.dx = a.x_out("dx", shape, adds);
              if (with_dscale) b.dscale = a.out("dscale", adds ? t : DType::f32, {shape.cols()}, adds_params);
              b.accumulate = adds, b.accumulate_params = adds_params;
              return b;
            },
            [&](const Values& in, const Values& exact) {
              Values bounds;
              const std::size_t size = in.at("dy").size(), C = std::size_t(shape.cols());
              if (with_dx) bounds["dx"];
              for (std::size_t i = 0; with_dx && i < size; ++i)
                bounds["dx"].push_back(elementwise_error(adds ? in.at("dx")[i] : 0.0, exact.at("dx")[i]));
              if (!with_dscale) return bounds;
              std::vector<double> absolute(C, 0.0);
              for (std::size_t i = 0; i < size; ++i) {
                const double mask = on(1) ? in.at("mask")[i / (size / std::size_t(shape[0]))] : 1.0;
                absolute[i % C] += std::abs(in.at("dy")[i] * in.at("x")[i] * mask);
              }
              for (std::size_t c = 0; c < C; ++c)
                bounds["dscale"].push_back(
                    sum_error(shape.rows() + 1, absolute[c] + (adds_params ? std::abs(in.at("dscale")[c]) : 0.0)));
              return bounds;
            });
      }
  });
}

TEST_CASE("drop_mask: the same bits as the reference for every seed, step, stream and sample") {
  for (const std::uint64_t seed : {0ull, 7ull, 0xfedcba9876543210ull})
    for (const std::int64_t step : {std::int64_t(0), std::int64_t(1), std::int64_t(0xffffffff)})
      for (const std::int64_t first : {std::int64_t(0), std::int64_t(3), (std::int64_t(1) << 34) - 5})
        for (const double p : {0.0, 0.1, 0.5, 0.999})
          for (const std::int64_t batch : {0, 1, 31, 257})
            EVERGRAD_CONFORMS(
                drop_mask, DropMask, cat(seed, " ", step, " ", first, " ", p, " ", batch), DType::f32,
                [&](Arguments& a) {
                  a.step.seed = seed, a.step.step = step, a.step.first_sample = first;
                  return DropMask{a.out("mask", DType::f32, {batch}), p, fnv1a("drop_path/blocks.1.drop_path2"),
                                  a.step_record()};
                },
                equal());
}

TEST_CASE("drop_mask: drops as often as asked, keeps the expectation, and does not depend on the batch") {
  const std::int64_t n = 40000;
  for (const bool exact : {false, true})
    for (const double p : {0.1, 0.5}) {
      std::vector<double> whole(static_cast<std::size_t>(n)), parts(whole);
      const auto draw = [&](std::int64_t first, std::int64_t count, std::vector<double>& to) {
        Arguments a(DType::f32, exact);
        a.step.seed = 11, a.step.step = 4, a.step.first_sample = first;
        a.run(&KernelTable::drop_mask, DropMask{a.out("mask", DType::f32, {count}), p, 99, a.step_record()});
        const std::vector<double> held = a.values().at("mask");
        std::copy(held.begin(), held.end(), to.begin() + first);
      };
      draw(0, n, whole);
      for (std::int64_t first = 0; first < n; first += 700) draw(first, std::min<std::int64_t>(700, n - first), parts);
      CHECK(whole == parts);
      double dropped = 0.0, sum = 0.0;
      for (const double m : whole) dropped += m == 0.0, sum += m;
      // Five standard deviations of a binomial count; a mask's own deviation is sqrt(p / (1 - p)).
      CHECK(std::abs(dropped / double(n) - p) < 5.0 * std::sqrt(p * (1.0 - p) / double(n)));
      CHECK(std::abs(sum / double(n) - 1.0) < 5.0 * std::sqrt(p / (1.0 - p) / double(n)));
    }
}

}  // namespace eg::test
