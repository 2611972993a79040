// tests/optim/test_arrow_solve.cpp - the W x W part of ARROW and its three passes, called as kernels: a right-hand side
// outside the window, a matrix that is not positive definite, the diagnostics that need no pass, large targets.
#include <array>

#include "engine/parallel.h"
#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

namespace {

/// The overlaps g_k.u of the state, newest column first.
Values overlaps(const ArrowState& s, int window) {
  Values all;
  const std::int64_t slots = window + 1;
  for (std::int64_t k = 1; k <= s.filled; ++k) all.push_back(s.overlap[(s.next - k + 2 * slots) % slots]);
  return all;
}

}  // namespace

TEST_CASE("arrow: the general form has its golden value for a vector outside the window") {
  for (const Device d : kBoth) {
    const DType t = d.statistic();
    const auto zeros = [&](const Shape& shape, DType type) { return Tensor::zeros(shape, type, d); };
    const Tensor ring = zeros({4, 2}, t), gram = zeros({1, 4, 4}, DType::f64), dots = zeros({1, 7}, DType::f64);
    const Tensor weight = zeros({2}, t), momentum = zeros({2}, t);
    ArrowState state;
    StepRecord step;
    step.slot[0].lr = 1.0;
    const ArrowOptions options{
        .window = 3, .alpha = 0.5, .beta = 1.0, .damping = ArrowDamping::absolute, .warmup = ArrowWarmup::none};
    // v = g1, then -2 v + g2 = (-1, 1), then 1.7 v + g3 = (0.3, 0.7).
    const std::vector<std::pair<Values, double>> steps = {{{1, 0}, 0.0}, {{1, 1}, -2.0}, {{2, -1}, 1.7}};
    for (const auto& [g, mu] : steps) {
      const Tensor grad = Tensor::from(g, {2}, t, d);
      const ArrowTarget target{
          .weight = weight.view(), .grad = grad.view(), .ring = ring.view(), .momentum = momentum.view()};
      weight.set_zero();
      EVERGRAD_CALL(d, arrow_observe,
                    ArrowObserve{.grad = grad.view(),
                                 .ring = ring.view(),
                                 .gram = gram.reshape({4, 4}).view(),
                                 .state = &state,
                                 .vector = momentum.view(),
                                 .dots = dots.reshape({7}).view()});
      const ArrowSystem system{.grams = gram.view(), .dots = dots.view(), .parameters = 2, .state = &state};
      EVERGRAD_CALL(d, arrow_solve,
                    ArrowSolve{.systems = {&system, 1}, .vector_mu = mu, .options = options, .step = &step});
      EVERGRAD_CALL(d, arrow_update,
                    ArrowUpdate{.targets = {&target, 1},
                                .step = &step,
                                .state = &state,
                                .window = 3,
                                .graft = ArrowGraft::none,
                                .mu = mu,
                                .precondition_momentum = true});
    }
    check_close(momentum.to_host(), {0.3, 0.7}, d, 4.0);
    check_close(scaled(weight.to_host(), -1.0), {0.207920792, 0.659405941}, d, 8.0);
    CHECK(state.norm_sq_vector == doctest::Approx(0.58).epsilon(d == kReference ? 1e-12 : 1e-6));
  }
}

TEST_CASE("arrow: when the matrix is not positive definite alpha grows tenfold, five times at most") {
  for (const Device d : kBoth) {
    // K = (1 3; 3 1) has the eigenvalue -2, which no Gram matrix has: only alpha above 2 helps.
    const auto solve = [&](double alpha) {
      const Tensor gram = Tensor::from(Values{1, 3, 0, 3, 1, 0, 0, 0, 0}, {1, 3, 3}, DType::f64, d);
      ArrowState state;
      state.filled = state.next = 1, state.clip[0] = 1.0;
      StepRecord step;
      const ArrowSystem system{.grams = gram.view(), .state = &state};
      EVERGRAD_CALL(d, arrow_solve,
                    ArrowSolve{.systems = {&system, 1},
                               .options = {.window = 2, .alpha = alpha, .beta = 2.0, .damping = ArrowDamping::absolute},
                               .step = &step});
      return state;
    };
    const ArrowState saved = solve(0.01);  // 0.01, 0.1 and 1 fail
    CHECK(saved.alpha == doctest::Approx(10.0).epsilon(1e-14));
    CHECK(saved.coefficient[1] == doctest::Approx(11.0 / 112).epsilon(1e-12));
    CHECK(saved.coefficient[0] == doctest::Approx(-3.0 / 112).epsilon(1e-12));
    const ArrowState lost = solve(1e-9);  // and so do all up to 1e-4: the step is g / alpha
    CHECK(lost.alpha == doctest::Approx(1e-4).epsilon(1e-14));
    CHECK(lost.coefficient[1] == 1.0 / lost.alpha);
    CHECK(lost.coefficient[0] == 0.0);
    CHECK(lost.norm_sq_update == doctest::Approx(1e8).epsilon(1e-12));
  }
}

TEST_CASE("arrow: the diagnostics equal dot products with the step, from nearly no damping to strong damping") {
  // x = beta lambda_max / (alpha D), from 1e-11 on. c carries a relative error of 1e-16 x, and |u|^2 one of 1e-16 x^2:
  // x reaches 3e4. At the lower end 1 - alpha c_s would keep four digits.
  for (const std::string alpha : {"1e12", "1e9", "1e4", "1", "1e-3"})
    for (const std::string form : {"", ":ring=bf16", ":momentum=0.9:momentum-form=gradient"}) {
      CAPTURE(alpha);
      CAPTURE(form);
      const double tolerance = alpha == "1e-3" ? 1e-7 : 1e-12;
      Rig rig(kReference, literal("beta=2:window=4:alpha=" + alpha + form), {{.start = Values(7, 0.0)}}, 1.0);
      std::vector<Values> window;
      for (int i = 0; i < 7; ++i) {
        const Values g = scaled(draw(i, 7), 1.0 + i % 2), u = rig.direction(g);
        const auto agrees = [&](double found, const Values& with) {
          CHECK(std::abs(found - dot(with, u)) <= tolerance * length(with) * length(u));
        };
        Values column = g;
        for (double& x : column) x = form == ":ring=bf16" ? double(bf16(x)) : x;
        push(window, column, 4);
        const ArrowState s = rig.arrow();
        const Values found = overlaps(s, 4);
        REQUIRE(found.size() == window.size());
        for (std::size_t k = 0; k < found.size(); ++k) agrees(found[k], window[window.size() - 1 - k]);
        agrees(s.descent, g);
        CHECK(s.norm_sq_update == doctest::Approx(dot(u, u)).epsilon(tolerance));
      }
    }
}

TEST_CASE("arrow: the logged scalars are sums over groups, and interference counts the older gradients") {
  const std::vector<Piece> pieces = {{.start = Values(5, 0.0)},
                                     {.start = Values(6, 0.0), .name = "blocks.1.attn.proj.weight", .block = 1}};
  Rig rig(kReference, literal("alpha=0.5:beta=1:window=3"), pieces, 1.0);
  std::vector<Values> first, second;
  for (int i = 0; i < 5; ++i) {
    const std::vector<Values> g = {draw(i, 5), draw(i, 6, 1)};
    const Values before = rig.weights(1), u = rig.taken(g);
    Values v = rig.weights(1);
    for (std::size_t k = 0; k < v.size(); ++k) v[k] = before[k] - v[k];
    push(first, g[0], 3), push(second, g[1], 3);
    std::map<std::string, double> s = rig.optimizer->scalars();
    const auto is = [&](const char* name, double wanted) {
      CAPTURE(name);
      CHECK(s.at(std::string("arrow.") + name) == doctest::Approx(wanted).epsilon(1e-10));
    };
    is("gradient_norm", std::sqrt(dot(g[0], g[0]) + dot(g[1], g[1])));
    is("update_norm", std::sqrt(dot(u, u) + dot(v, v)));
    is("descent", dot(g[0], u) + dot(g[1], v));
    double interference = 0.0;
    for (std::size_t k = 0; k + 1 < first.size(); ++k) interference += dot(first[k], u) + dot(second[k], v);
    is("interference", interference);
    is("filled", double(first.size()));
    is("alpha", 0.5), is("beta", 1.0), is("base_share", 0.0);
  }
}

TEST_CASE("arrow: targets of many chunks give the reference's step, and the same bits on any number of threads") {
  const int threads = num_threads();
  for (const std::string form : {"", ":ring=bf16", ":momentum=0.9:momentum-form=gradient"}) {
    CAPTURE(form);
    const std::size_t n = 3 * 4096 + 31, m = 4093;
    const std::vector<Piece> pieces = {{.start = Values(n, 0.0)},
                                       {.start = Values(m, 0.0), .name = "blocks.0.attn.b.weight"}};
    const std::string method = literal("damping=dimensionless:kappa=5:window=3" + form);
    Rig exact(kReference, method, pieces, 1.0);
    std::array<std::unique_ptr<Rig>, 2> cpu;
    for (auto& rig : cpu) rig = std::make_unique<Rig>(kCpu, method, pieces, 1.0);
    std::vector<Values> window;
    for (int i = 0; i < 5; ++i) {
      const std::vector<Values> g = {draw(i, n), draw(i, m, 1)};
      const Values u = exact.direction(g);
      for (std::size_t k = 0; k < 2; ++k) {
        set_num_threads(k == 0 ? 1 : 3);
        cpu[k]->direction(g);
      }
      const Values found = scaled(cpu[0]->weights(), -1.0);
      push(window, g[0], 3);
      // Each element is a sum of c_j g_j, with c at most 1 here (kappa damps, alpha is 1), and of the vector itself: at
      // most sum_k mu^k |g_k|, below 10 times the largest.
      double worst = 0.0, largest = 0.0;
      for (std::size_t k = 0; k < n; ++k) {
        worst = std::max(worst, std::abs(found[k] - u[k]));
        for (const Values& column : window) largest = std::max(largest, std::abs(column[k]));
      }
      CHECK(worst <= sum_error(4, (form.find("momentum") == std::string::npos ? 4.0 : 13.0) * largest));
      CHECK(worst > 0.0);
    }
    CHECK(cpu[0]->bits() == cpu[1]->bits());
  }
  set_num_threads(threads);
}
