// tests/kernels/test_arrow.cpp - the passes of ARROW over the parameters. (That the steps are the right ones is tested
// in tests/optim against dense solves; here the cpu's passes are compared with the reference's.)
#include "tests/kernels/adam_error.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"arrow_observe", "arrow_solve", "arrow_base", "arrow_update"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);
constexpr int kWindow = 5;
constexpr std::int64_t kSlots = kWindow + 1;
const std::vector<std::int64_t> kSizes{1, 31, 33, 197, 9001};  // the last is three chunks of 4096

/// A state in the middle of training: every slot has a clip factor and a coefficient.
void fill_state(ArrowState& s, std::int64_t next, std::int64_t filled) {
  s.next = next, s.filled = filled, s.t = 40, s.committed = 1;
  const Key k = key(2, "arrow", "state");
  for (int j = 0; j < kSlots; ++j) {
    s.clip[j] = 0.5 + 0.5 * k.uniform(std::uint64_t(j));
    s.coefficient[j] = k.normal(std::uint64_t(j + 100));
  }
  s.norm_sq_update = 3.0, s.norm_sq_base = 1.7, s.norm_sq_gradient = 2.2;
}
void fill_step(StepRecord& step) {
  step.clip_scale = 0.7;
  step.slot[0] = {0.05, 12}, step.slot[1] = {0.01, 30};
}

double absolute_product(const Vector& a, std::size_t a0, const Vector& b, std::size_t b0, std::int64_t n) {
  double sum = 0.0;
  for (std::size_t i = 0; i < std::size_t(n); ++i) sum += std::abs(a[a0 + i] * b[b0 + i]);
  return sum;
}

struct Observe {
  std::int64_t size, next, filled;
  DType grad, ring;
  bool general, vector;
  std::int64_t before = 0, behind = 0;  // elements of a column around those that are observed
  bool summed = true;
};

ArrowObserve arguments(Arguments& a, const Observe& c) {
  fill_state(a.state, c.next, c.filled);
  ArrowObserve o;
  o.grad = a.typed("grad", c.grad, {c.size});
  // The newest column is written, rounded, and read again in the same call.
  o.ring = a.rounded_out("ring", c.ring, {kSlots, c.before + c.size + c.behind}, true);
  o.begin = c.before;
  if (c.summed) o.gram = a.out("gram", DType::f64, {kSlots, kSlots}, true);
  if (c.general) o.dots = a.out("dots", DType::f64, {kSlots + 3}, true);
  if (c.vector) o.vector = a.stat("vector", {c.size});
  o.state = a.arrow_state();
  return o;
}

Values bounds_of(const Observe& c, const Values& in, const Values& exact) {
  if (!c.summed) return {};
  Values bounds{{"gram", Vector(std::size_t(kSlots * kSlots), 0.0)}};
  const Vector &grad = in.at("grad"), &ring = exact.at("ring");
  const auto column = [&](std::size_t slot) {
    return slot * std::size_t(c.before + c.size + c.behind) + std::size_t(c.before);
  };
  const auto bound = [&](double absolute) { return sum_error(c.size, absolute, DType::f64); };
  const auto newest = std::size_t(c.next);
  for (std::size_t j = 0; j < std::size_t(kSlots); ++j)
    bounds["gram"][newest * kSlots + j] = bounds["gram"][j * kSlots + newest] =
        bound(absolute_product(ring, column(newest), ring, column(j), c.size));
  if (!c.general) return bounds;
  for (std::size_t j = 0; j < std::size_t(kSlots); ++j)
    bounds["dots"].push_back(bound(absolute_product(grad, 0, ring, column(j), c.size)));
  bounds["dots"].push_back(bound(absolute_product(grad, 0, grad, 0, c.size)));
  bounds["dots"].push_back(c.vector ? bound(absolute_product(grad, 0, in.at("vector"), 0, c.size)) : 0.0);
  bounds["dots"].push_back(c.vector ? bound(absolute_product(ring, column(newest), in.at("vector"), 0, c.size)) : 0.0);
  return bounds;
}

}  // namespace

TEST_CASE("arrow_observe: agrees with the reference for every fill of the ring, and writes only what is committed") {
  const std::pair<DType, DType> types[] = {
      {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::f32, DType::bf16}};
  for (const auto& [grad, ring] : types)
    for (const std::int64_t size : kSizes)
      for (const std::int64_t filled : {0, 2, 4, 5})
        for (const std::int64_t next : {0, 3, 5})
          for (const int form : {0, 1, 2}) {
            if (size > 1000 && next != 3) continue;
            const Observe c{size, next, filled, grad, ring, form > 0, form > 1};
            EVERGRAD_CONFORMS(
                arrow_observe, ArrowObserve,
                cat(size, " ", grad, " ring ", ring, " filled ", filled, " next ", next, " form ", form), DType::f32,
                [&](Arguments& a) { return arguments(a, c); },
                [&](const Values& in, const Values& exact) { return bounds_of(c, in, exact); });
          }
}

TEST_CASE("arrow_observe: a stretch of the columns, of which only the newest may change, and that not beside it") {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t size : {0, 31, 5000})
      for (const std::int64_t before : {0, 3, 16})
        for (const int form : {-1, 0, 2}) {  // -1: the ring alone
          const Observe c{size, 3, 4, type, type, form > 0, form > 1, before, 24, form >= 0};
          EVERGRAD_CONFORMS(
              arrow_observe, ArrowObserve, cat(size, " ", type, " behind ", before, " form ", form), DType::f32,
              [&](Arguments& a) { return arguments(a, c); },
              [&](const Values& in, const Values& exact) { return bounds_of(c, in, exact); });
        }
}

TEST_CASE("arrow_solve: the device gives the reference's bits") {
  // Windows smaller and larger than a warp; in one of the larger the Gram matrix, of rank 9, needs a larger alpha.
  for (const ArrowDamping damping : {ArrowDamping::absolute, ArrowDamping::relative, ArrowDamping::dimensionless})
    for (const int window : {kWindow, 40, kArrowMaxWindow})
      for (const bool general : {false, true}) {
        const std::int64_t slots = window + 1;
        const auto solve = [&](bool exact) {
          Arguments a(DType::f32, exact);
          fill_state(a.state, 2, window - 1);
          for (std::int64_t j = kSlots; j < slots; ++j) a.state.clip[j] = 0.9, a.state.projection[j] = double(j);
          fill_step(a.step);
          // Gram matrices of three tensors, made of columns so that they are positive semidefinite.
          const Draw gram = [=](const Key& k, std::int64_t i) {
            double sum = 0.0;
            const std::int64_t row = i / slots % slots, column = i % slots, tensor = i / (slots * slots);
            for (std::int64_t p = 0; p < 9; ++p)
              sum += k.normal(std::uint64_t((tensor * slots + row) * 9 + p)) *
                     k.normal(std::uint64_t((tensor * slots + column) * 9 + p));
            return sum;
          };
          ArrowSolve s;
          ArrowSystem system;
          system.grams = a.typed("grams", DType::f64, {3, slots, slots}, gram);
          if (general) system.dots = a.typed("dots", DType::f64, {3, slots + 3}, between(0.5, 2.0));
          system.parameters = 27;
          s.options.window = window, s.options.damping = damping;
          s.options.warmup = ArrowWarmup::none, s.vector_mu = 0.9;
          if (damping == ArrowDamping::absolute && window == 40) s.options.alpha = 1e-18;
          s.step = a.step_record(), system.state = a.arrow_state(), s.systems = {&system, 1};
          a.run(&KernelTable::arrow_solve, s);
          CHECK(a.state.committed == 1);
          CHECK((general || a.state.norm_sq_update > 0.0));
          if (s.options.alpha == 1e-18) CHECK(a.state.alpha > s.options.alpha);
          return std::pair(a.values(), a.bytes_of_state());
        };
        CAPTURE(window);
        CAPTURE(general);
        CHECK(solve(true) == solve(false));
      }
}

TEST_CASE("arrow_solve: systems that are solved together get the bits of each one alone") {
  const Device device = device_under_test().device;
  DeviceRuntime& r = runtime(device);
  // More systems than one launch of a GPU takes; and a large window, which may need more than a block's shared memory.
  for (const auto& [count, window] : {std::pair<std::size_t, int>{66, kWindow}, {3, kArrowMaxWindow}}) {
    CAPTURE(count);
    const std::int64_t slots = window + 1;
    StepRecord record;
    fill_step(record);
    const Tensor step = Tensor::empty({std::int64_t(sizeof record)}, DType::u8, device);
    r.copy_from_host(step.data(), &record, sizeof record, {});
    std::vector<Tensor> grams;
    for (std::size_t i = 0; i < count; ++i) {
      const Key k = key(5, "arrow_solve", "together", std::uint32_t(i));
      std::vector<double> columns(std::size_t(slots) * 9), gram;
      for (std::size_t j = 0; j < columns.size(); ++j) columns[j] = k.normal(j);
      for (std::int64_t a = 0; a < slots; ++a)
        for (std::int64_t b = 0; b < slots; ++b) {
          double sum = 0.0;
          for (std::int64_t p = 0; p < 9; ++p) sum += columns[std::size_t(9 * a + p)] * columns[std::size_t(9 * b + p)];
          gram.push_back(sum);
        }
      grams.push_back(Tensor::from(gram, {1, slots, slots}, DType::f64, device));
    }
    ArrowState before;
    fill_state(before, 2, window - 1);
    for (std::int64_t j = kSlots; j < slots; ++j) before.clip[j] = 0.9;
    const auto solve = [&](std::size_t at_once) {
      const Tensor states = Tensor::empty({std::int64_t(count * sizeof before)}, DType::u8, device);
      std::vector<ArrowState> host(count, before);
      r.copy_from_host(states.data(), host.data(), states.bytes(), {});
      std::vector<ArrowSystem> systems;
      for (std::size_t i = 0; i < count; ++i)
        systems.push_back({.grams = grams[i].view(),
                           .parameters = std::int64_t(20 + i),
                           .state = static_cast<ArrowState*>(states.data()) + i});
      ArrowSolve s;
      s.options.window = window, s.options.warmup = ArrowWarmup::none;
      s.step = static_cast<const StepRecord*>(step.data());
      for (std::size_t i = 0; i < count; i += at_once) {
        s.systems = std::span(systems).subspan(i, std::min(at_once, count - i));
        kernels(device).arrow_solve(s, {});
      }
      r.copy_to_host(host.data(), states.data(), states.bytes(), {});
      r.synchronize({});
      CHECK(std::all_of(host.begin(), host.end(), [](const ArrowState& a) { return a.committed == 1; }));
      return std::string(reinterpret_cast<const char*>(host.data()), states.bytes());
    };
    CHECK(solve(count) == solve(1));
  }
}

namespace {

struct Update {
  std::int64_t size;
  ArrowGraft graft = ArrowGraft::none;
  bool use_base = false, moments = true, momentum = false, precondition = false, work = false, committed = true;
  DType ring = DType::f32;
  double vector_coefficient = 0.0;
};

/// Two targets, the second of another length and without decay.
void add_targets(Arguments& a, const Update& c) {
  for (const std::int64_t which : {0, 1}) {
    const std::int64_t n = which ? c.size / 2 + 1 : c.size;
    const auto name = [&](const char* base) { return cat(base, which); };
    ArrowTarget t;
    t.weight = a.out(name("weight"), DType::f32, {n}, true), t.grad = a.typed(name("grad"), gradient_type(c.work), {n});
    t.ring = a.typed(name("ring"), c.ring, {kSlots, n});
    if (c.work) t.work = a.out(name("work"), DType::bf16, {n}, true);
    if (c.moments) t.m = a.typed(name("m"), DType::f32, {n}, normal(0.5), Use::added);
    if (c.moments) t.v = a.typed(name("v"), DType::f32, {n}, between(0.0, 2.0), Use::added);
    if (c.momentum) t.momentum = a.out(name("momentum"), DType::f32, {n}, true);
    t.weight_decay = which ? 0.0 : 0.1;
    a.targets.push_back(t);
  }
}

ArrowUpdate arguments(Arguments& a, const Update& c) {
  fill_state(a.state, 2, kWindow);
  fill_step(a.step);
  a.state.use_base = c.use_base, a.state.committed = c.committed, a.state.vector_coefficient = c.vector_coefficient;
  a.state.coefficient[4] = 0.0;  // a slot that takes no part
  add_targets(a, c);
  ArrowUpdate w;
  w.targets = a.targets, w.step = a.step_record(), w.state = a.arrow_state();
  w.slot = 0, w.base_slot = 1, w.window = kWindow, w.graft = c.graft;
  w.mu = 0.9, w.precondition_momentum = c.precondition;
  return w;
}

/// u is a sum of at most W + 2 terms whose factors were rounded; momentum and weight follow as in SGD.
Values bounds_of(const Update& c, const Values& in, const Values& exact) {
  ArrowState s;
  StepRecord step;
  fill_state(s, 2, kWindow);
  fill_step(step);
  s.coefficient[4] = 0.0;
  const double norm_sq = c.graft == ArrowGraft::sgd ? s.norm_sq_gradient : s.norm_sq_base;
  const double factor = c.graft == ArrowGraft::none ? 1.0 : std::sqrt(norm_sq / s.norm_sq_update);
  const double lr = step.slot[c.use_base ? 1 : 0].lr;
  Values bounds;
  for (const std::int64_t which : {0, 1}) {
    const auto name = [&](const char* base) { return cat(base, which); };
    const Vector &weight = in.at(name("weight")), &grad = in.at(name("grad")), &ring = in.at(name("ring"));
    const std::size_t n = weight.size();
    for (std::size_t i = 0; i < n; ++i) {
      const double g = std::abs(step.clip_scale * grad[i]);
      const double old = c.momentum ? std::abs(0.9 * in.at(name("momentum"))[i]) : 0.0;
      double terms = 0.0, error = 0.0, momentum_error = 0.0;
      if (c.committed) {
        const bool of_momentum = c.momentum && c.precondition;
        const double vector = of_momentum ? old + g : g;
        if (of_momentum) momentum_error = 3.0 * u * (old + g);
        if (c.use_base) {
          const AdamError e =
              c.moments ? adam_error(0.0, 0.0, in.at(name("m"))[i], in.at(name("v"))[i], 0.0, 12.0) : AdamError{};
          terms = c.moments ? e.direction : g, error = c.moments ? e.direction_error : 2.0 * u * g;
        } else {
          terms = std::abs(c.vector_coefficient) * vector;
          for (int j = 0; j <= kWindow; ++j) terms += std::abs(s.coefficient[j] * ring[std::size_t(j) * n + i]);
          terms *= factor;
          error = sum_error(kWindow + 2, terms) + std::abs(c.vector_coefficient) * factor * momentum_error;
          if (c.momentum && !c.precondition) {
            terms += old, error += 3.0 * u * terms;
            momentum_error = error;
          }
        }
      }
      bounds[name("weight")].push_back(4.0 * u * std::abs(weight[i]) + lr * (error + 3.0 * u * terms));
      if (c.momentum) bounds[name("momentum")].push_back(momentum_error);
      if (c.work)
        bounds[name("work")].push_back(bounds[name("weight")].back() + stored(exact.at(name("weight"))[i], DType::f32));
      if (c.moments) bounds[name("m")].push_back(0.0), bounds[name("v")].push_back(0.0);
    }
  }
  return bounds;
}

}  // namespace

TEST_CASE("arrow_update: agrees with the reference for every kind of step") {
  for (const std::int64_t size : kSizes) {
    std::vector<Update> all{{size}, {size, ArrowGraft::sgd}, {size, ArrowGraft::adamw}};
    for (const bool base : {false, true})
      for (int options = 0; options < 16; ++options) {
        Update c{size, ArrowGraft::adamw, base, (options & 1) != 0, (options & 2) != 0, (options & 4) != 0};
        c.work = (options & 8) != 0, c.ring = options % 3 ? DType::f32 : DType::bf16;
        if (options % 5 == 4) c.vector_coefficient = 0.8;
        all.push_back(c);
      }
    for (const bool momentum : {false, true}) {
      Update c{size, ArrowGraft::none, false, true, momentum, false, true, false};
      all.push_back(c);
    }
    for (std::size_t i = 0; i < all.size(); ++i)
      EVERGRAD_CONFORMS(
          arrow_update, ArrowUpdate, cat(size, " case ", i), DType::f32,
          [&](Arguments& a) { return arguments(a, all[i]); },
          [&](const Values& in, const Values& exact) { return bounds_of(all[i], in, exact); });
  }
}

TEST_CASE("arrow_base: moments and the norm of AdamW's direction agree with the reference") {
  for (const std::int64_t size : kSizes) {
    const auto build = [&](Arguments& a) {
      fill_step(a.step);
      add_targets(a, {size});
      return ArrowBase{a.targets, a.step_record(), a.arrow_state(), 1};
    };
    double allowed = 0.0;
    const auto bounds = [&](const Values& in, const Values& exact) {
      Values all;
      double sum = 0.0, error = 0.0;
      for (const char* which : {"0", "1"}) {
        const auto at = [&](const Values& v, const char* base) -> const Vector& {
          return v.at(std::string(base) + which);
        };
        for (std::size_t i = 0; i < at(in, "grad").size(); ++i) {
          const double D = std::abs(0.7 * at(in, "grad")[i]);
          const AdamError e = adam_error(at(in, "m")[i], at(in, "v")[i], at(exact, "m")[i], at(exact, "v")[i], D, 30.0);
          all[std::string("m") + which].push_back(e.m), all[std::string("v") + which].push_back(e.v);
          // The direction is rounded to fp32 before it is squared, in double.
          sum += e.direction * e.direction;
          error += (2.0 * e.direction + e.direction_error) * e.direction_error;
        }
      }
      allowed = error + sum_error(2 * size, sum, DType::f64);
      return all;
    };
    EVERGRAD_CONFORMS(arrow_base, ArrowBase, cat(size), DType::f32, build, bounds);
    Arguments exact(DType::f32, true), got(DType::f32, false);
    exact.run(&KernelTable::arrow_base, build(exact));
    got.run(&KernelTable::arrow_base, build(got));
    CAPTURE(size);
    CHECK(exact.state.norm_sq_base > 0.0);
    CHECK(std::abs(got.state.norm_sq_base - exact.state.norm_sq_base) <= allowed);
  }
}

TEST_CASE("arrow_base, arrow_update: a step that is not finite changes no bit") {
  for (const bool exact : {false, true}) {
    Arguments a(DType::f32, exact);
    Update c{33, ArrowGraft::adamw, false, true, true, false, true};
    const ArrowUpdate update = arguments(a, c);
    a.step.finite = 0;
    const std::vector<std::byte> before = a.bytes();
    a.run(&KernelTable::arrow_base, ArrowBase{a.targets, a.step_record(), a.arrow_state(), 1});
    CHECK(a.bytes() == before);
    a.run(&KernelTable::arrow_update, update);
    CHECK(a.bytes() == before);
  }
}

}  // namespace eg::test
