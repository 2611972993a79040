// engine/cpu/arrow.cpp - ARROW (arXiv:2603.07787; methods.md A.3) over chunks of parameters that stay in cache. The
// window is read twice per step, once for the Gram row and once for the combination, because the coefficients depend
// on the dots.
#include "engine/arrow_solve.h"

#include <array>
#include <cmath>

#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"

namespace eg::cpu {
namespace {

struct ArrowAdam {
  float clip, beta1, rest1, beta2, rest2, eps, correction1, correction2;
};

}  // namespace
}  // namespace eg::cpu

#define EVERGRAD_KERNEL_BODY "engine/cpu/arrow.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kChunk = 4096;  // elements: with the step's buffer well inside the first-level cache
constexpr std::size_t kDots = 2 * std::size_t(kArrowMaxWindow + 1) + 3;

/// Calls f(pointer) with the typed pointer of an f32 or bf16 view.
template <class F>
void typed(const TensorView& v, const F& f) {
  if (v.dtype == DType::bf16)
    f(v.as<bf16>());
  else
    f(v.as<float>());
}

template <class Args>
ArrowAdam adam_constants(const Args& a) {
  const double t = double(a.step->slot[a.slot].t + 1);
  return {float(a.step->clip_scale),
          float(a.beta1),
          float(1.0 - a.beta1),
          float(a.beta2),
          float(1.0 - a.beta2),
          float(a.eps),
          float(1.0 / (1.0 - std::pow(a.beta1, t))),
          float(1.0 / std::sqrt(1.0 - std::pow(a.beta2, t)))};
}

/// The dots of one chunk: [j] = <ring[s], ring[j]>; then, in the general form, [slots + j] = <grad, ring[j]> and the
/// three scalars of ArrowObserve::dots.
template <class G, class R>
void observe_chunk(const ArrowObserve& a, const G* grad, R* ring, std::int64_t begin, std::int64_t n, double* dots) {
  const std::int64_t size = a.ring.dim(1), slots = a.ring.dim(0), s = a.state->next;
  R* const first = ring + a.begin + begin;
  R* const newest = first + s * size;
  EVERGRAD_DISPATCH(copy_chunk, grad + begin, newest, n);
  if (!a.gram) return;
  for (std::int64_t back = 0; back <= a.state->filled && back < slots; ++back) {
    const std::int64_t j = (s - back + slots) % slots;
    EVERGRAD_DISPATCH(dot_chunk, newest, first + j * size, n, dots[j]);
    if (a.dots) EVERGRAD_DISPATCH(dot_chunk, grad + begin, first + j * size, n, dots[slots + j]);
  }
  if (!a.dots) return;
  EVERGRAD_DISPATCH(dot_chunk, grad + begin, grad + begin, n, dots[2 * slots]);
  if (!a.vector) return;
  EVERGRAD_DISPATCH(dot_chunk, grad + begin, a.vector.as<float>() + begin, n, dots[2 * slots + 1]);
  EVERGRAD_DISPATCH(dot_chunk, newest, a.vector.as<float>() + begin, n, dots[2 * slots + 2]);
}

/// The factor that gives u the norm of another step: ARROW then chooses the direction alone.
float graft_factor(const ArrowUpdate& a) {
  const ArrowState& s = *a.state;
  if (a.graft == ArrowGraft::none || !(s.norm_sq_update > 0.0)) return 1.0f;
  return float(std::sqrt((a.graft == ArrowGraft::sgd ? s.norm_sq_gradient : s.norm_sq_base) / s.norm_sq_update));
}

/// AdamW's direction where moments exist, else the clipped gradient; as long as ARROW's step in a norm control.
void base_direction(const ArrowUpdate& a, const ArrowTarget& target, const ArrowAdam& adam, std::int64_t begin,
                    std::int64_t n, float* u) {
  if (target.m)
    EVERGRAD_DISPATCH(adam_direction, adam, target.m.as<float>() + begin, target.v.as<float>() + begin, u, n);
  else
    EVERGRAD_DISPATCH(scale_chunk, u, adam.clip, target.grad.as<float>() + begin, n);
  const double square = target.m ? a.state->norm_sq_base : a.state->norm_sq_gradient;
  if (a.state->use_base || !(square > 0.0)) return;
  EVERGRAD_DISPATCH(scale_chunk, u, float(std::sqrt(a.state->norm_sq_update / square)), u, n);
}

/// Writes this step's direction for [begin, begin + n) of one target into u, advancing its momentum.
void direction(const ArrowUpdate& a, const ArrowTarget& target, const ArrowAdam& adam, std::int64_t begin,
               std::int64_t n, float* u) {
  const ArrowState& s = *a.state;
  const float* const grad = target.grad.as<float>() + begin;
  float* const momentum = target.momentum ? target.momentum.as<float>() + begin : nullptr;
  const float clip = adam.clip, mu = float(a.mu);
  if (s.committed && momentum && a.precondition_momentum) EVERGRAD_DISPATCH(blend_chunk, momentum, mu, clip, grad, n);
  if (s.use_base || (s.committed && a.norm_control)) return base_direction(a, target, adam, begin, n, u);
  const float factor = graft_factor(a);
  std::fill(u, u + n, 0.0f);
  if (!s.committed) return;
  if (s.vector_coefficient != 0.0) {
    const bool of_momentum = momentum && a.precondition_momentum;
    const double c = s.vector_coefficient * double(factor) * (of_momentum ? 1.0 : double(clip));
    EVERGRAD_DISPATCH(scale_chunk, u, float(c), of_momentum ? momentum : grad, n);
  }
  typed(target.ring, [&](auto* ring) {
    for (int j = 0; j <= a.window; ++j)
      if (s.coefficient[j] != 0.0)
        EVERGRAD_DISPATCH(add_column, u, float(s.coefficient[j] * double(factor)),
                          ring + j * target.weight.size() + begin, n);
  });
  if (momentum && !a.precondition_momentum) {
    EVERGRAD_DISPATCH(blend_chunk, momentum, mu, 1.0f, u, n);
    std::copy(momentum, momentum + n, u);
  }
}

}  // namespace

void arrow_observe(const ArrowObserve& a, Stream) {
  const std::int64_t size = a.grad.size(), slots = a.ring.dim(0), s = a.state->next;
  std::vector<std::array<double, kDots>> partial(std::size_t(chunks_of(size, kChunk)));
  typed(a.grad, [&](auto* grad) {
    typed(a.ring, [&](auto* ring) {
      parallel_for(size, kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
        observe_chunk(a, grad, ring, begin, end - begin, partial[std::size_t(chunk)].data());
      });
    });
  });
  if (!a.gram) return;
  const auto sum = [&](std::int64_t entry) {
    double total = 0.0;
    for (const auto& p : partial) total += p[std::size_t(entry)];
    return total;
  };
  double* const gram = a.gram.as<double>();
  for (std::int64_t back = 0; back <= a.state->filled && back < slots; ++back) {
    const std::int64_t j = (s - back + slots) % slots;
    gram[s * slots + j] = gram[j * slots + s] = sum(j);
    if (a.dots) a.dots.as<double>()[j] = sum(slots + j);
  }
  for (std::int64_t i = 0; a.dots && i < 3; ++i) a.dots.as<double>()[slots + i] = sum(2 * slots + i);
}

void arrow_solve(const ArrowSolve& a, Stream) { arrow_solve_on_host(a); }

void arrow_base(const ArrowBase& a, Stream) {
  if (!a.step->finite) return;
  const ArrowAdam adam = adam_constants(a);
  double total = 0.0;
  for (const ArrowTarget& target : a.targets) {
    const std::int64_t size = target.weight.size();
    std::vector<double> partial(std::size_t(chunks_of(size, kChunk)));
    parallel_for(size, kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
      float* const m = target.m.as<float>() + begin;
      float* const v = target.v.as<float>() + begin;
      float* const u = thread_scratch(kChunk);
      EVERGRAD_DISPATCH(adam_moments, adam, target.grad.as<float>() + begin, m, v, end - begin);
      EVERGRAD_DISPATCH(adam_direction, adam, m, v, u, end - begin);
      EVERGRAD_DISPATCH(dot_chunk, u, u, end - begin, partial[std::size_t(chunk)]);
    });
    for (const double p : partial) total += p;
  }
  a.state->norm_sq_base = total;
}

void arrow_update(const ArrowUpdate& a, Stream) {
  if (!a.step->finite) return;
  const double base_lr = a.step->slot[a.base_slot].lr, lr = a.state->use_base ? base_lr : a.step->slot[a.slot].lr;
  const ArrowAdam adam = adam_constants(a);
  for (const ArrowTarget& target : a.targets)
    parallel_for(target.weight.size(), kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      float* const w = target.weight.as<float>() + begin;
      float* const u = thread_scratch(kChunk);
      direction(a, target, adam, begin, end - begin, u);
      const float shrink = float(1.0 - base_lr * double(target.weight_decay));
      EVERGRAD_DISPATCH(apply_chunk, w, shrink, float(lr), u, end - begin);
      if (target.work) EVERGRAD_DISPATCH(copy_chunk, w, target.work.as<bf16>() + begin, end - begin);
    });
}

}  // namespace eg::cpu
