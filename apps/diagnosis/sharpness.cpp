// apps/diagnosis/sharpness.cpp - see sharpness.h.
#include "apps/diagnosis/sharpness.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "apps/diagnosis/borrowed_weights.h"
#include "apps/diagnosis/curvature.h"

namespace eg {
namespace {

constexpr double kSamRadius = 0.05;

double option(const MethodSpec& method, const char* name, double otherwise) {
  const auto at = method.options.find(name);
  return at == method.options.end() ? otherwise : std::strtod(at->second.c_str(), nullptr);
}

}  // namespace

std::vector<double> adam_preconditioner(Trainer& trainer, const MethodSpec& method) {
  if (method.name != "adam" && method.name != "adamw") return {};
  std::vector<double> v;
  std::int64_t updates = 0;
  for (const NamedTensor& t : trainer.state()) {
    if (t.name == "optimizer.v") v = t.tensor.to_host();
    if (t.name == "step_record") updates = std::int64_t(static_cast<const StepRecord*>(t.tensor.data())->slot[0].t);
  }
  if (std::int64_t(v.size()) != trainer.arena().size || updates < 1) return {};
  const double unbiased = 1.0 - std::pow(option(method, "beta2", 0.999), double(updates));
  const double eps = option(method, "eps", 1e-8);
  std::vector<double> d(v.size(), 1.0);
  for (const Param* p : trainer.params())
    for (std::int64_t i = p->offset; i < p->offset + p->size(); ++i)
      d[std::size_t(i)] = std::sqrt(v[std::size_t(i)] / unbiased) + eps;
  return d;
}

void measure_sharpness(Trainer& trainer, const Batch& batch, const Tensor& class_mask,
                       const std::vector<double>& preconditioner, Diagnosis& d) {
  const double none = std::numeric_limits<double>::quiet_NaN();
  for (const char* name : {"hessian.top", "hessian.trace", "sharpness.sam"}) d.model[name] = {none};
  if (!preconditioner.empty()) d.model["hessian.preconditioned_top"] = {none};
  if (trainer.model().config.precision == DType::bf16) return;
  const BorrowedWeights borrowed(trainer);
  const StepInputs in = inputs_of(batch, class_mask, trainer.model().config.classes, trainer.device());
  double loss = 0.0;  // at the last point
  const auto gradient = [&](std::span<const double> x) {
    borrowed.write({x.begin(), x.end()});
    Tape tape;
    const Watched watched(tape, trainer.model(), false);
    const Tensor logits = forward(trainer.model(), in.images, trainer.context(false));
    const Tensor losses = cross_entropy(logits, in.labels, {}, class_mask, 0.0, double(in.count), nullptr);
    backward(tape, losses);
    const std::vector<double> parts = losses.to_host();
    loss = std::accumulate(parts.begin(), parts.end(), 0.0);
    return trainer.arena().grad.to_host();
  };
  const auto put = [&](const char* name, const TopEigenvalue& top) {
    if (top.converged) d.model[name] = {top.value};
  };
  const std::vector<double> g = gradient(borrowed.values());
  const double here = loss, length = std::sqrt(std::inner_product(g.begin(), g.end(), g.begin(), 0.0));
  std::vector<double> uphill = borrowed.values();
  for (std::size_t i = 0; i < g.size() && length > 0.0; ++i) uphill[i] += kSamRadius / length * g[i];
  gradient(uphill);
  d.model["sharpness.sam"] = {loss - here};
  d.model["hessian.trace"] = {hessian_trace(gradient, borrowed.values(), trainer.seed())};
  put("hessian.top", top_hessian_eigenvalue(gradient, borrowed.values(), trainer.seed()));
  if (!preconditioner.empty())
    put("hessian.preconditioned_top",
        top_preconditioned_eigenvalue(gradient, borrowed.values(), preconditioner, trainer.seed()));
}

}  // namespace eg
