// optim/plasticity/dash.cpp - DASH, direction-aware shrinking (Shin et al. 2024, arXiv:2410.23495; methods.md B.11): before a
// new task is learned, every neuron keeps as much of its incoming weights as they agree with what the task asks for.
//
//   E = (1 - alpha) E - alpha g    over the batches of the new task, without an update; E = 0 before
//   s = clamp(cos(E_row, W_row), lambda, 1);  W_row = s W_row
//
// A bias is one row. Norms, positions and class tokens stay, and so does a head that was drawn anew: it has learned nothing
// that could be in the way. A row whose gradient is zero has no direction, and is shrunk to lambda.
#include <algorithm>
#include <cmath>

#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Dash final : public Intervention {
 public:
  Dash(const MethodSpec& spec, const Parameters& p) : params_(p), arena_(*p.arena) {
    OptionReader r(spec);
    alpha_ = r.number("alpha", 0.3, 0.0, 1.0);
    lambda_ = r.number("lambda", 0.3, 0.0, 1.0);
    clears_ = r.flag("clear-optimizer", true);
    r.finish();
  }
  std::string name() const override { return "dash"; }
  Stage stage() const override { return Stage::replacement; }
  void task_boundary(StepContext& ctx) override {
    if (lambda_ == 1.0) return;
    check(bool(ctx.gradients_of_task), Kind::usage, [] {
      return std::string(
          "dash: needs the gradients of the task that begins, which this loop does not offer; "
          "use it with evergrad continual");
    });
    const Tensor direction = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), arena_.device);
    const Tensor rest = Tensor::from(std::vector<double>{1.0 - alpha_}, {1}, arena_.device.statistic(), arena_.device);
    ctx.gradients_of_task([&] {
      EVERGRAD_CALL(arena_.device, scale_by,
                    ScaleBy{.x = direction.view(), .factor = rest.view(), .y = direction.view()}, ctx.stream);
      EVERGRAD_CALL(arena_.device, axpy, Axpy{.x = arena_.grad.view(), .y = direction.view(), .alpha = -alpha_},
                    ctx.stream);
    });
    runtime(arena_.device).synchronize(ctx.stream);
    double kept = 0.0, rows = 0.0;
    for (const Param* p : params_.list)
      if (takes(*p, ctx.head_changed)) shrink(*p, direction, kept, rows);
    kept_.data_as<double>()[0] = rows > 0.0 ? kept / rows : 1.0;
    arena_.refresh_work();
    ctx.weights_changed = true;
  }
  bool clears_optimizer() const override { return clears_ && lambda_ < 1.0; }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override { visit("kept", kept_); }
  std::size_t state_bytes() const override { return kept_.bytes(); }
  std::map<std::string, double> scalars() override { return {{"kept", kept_.data_as<double>()[0]}}; }
  std::string describe() const override {
    return cat("at a new task every neuron's weights are shrunk by their agreement with its gradient, to no less than ",
               lambda_, "; alpha ", alpha_, clears_ ? ", moments cleared" : "");
  }

 private:
  static bool takes(const Param& p, bool head_changed) {
    if (p.frozen || p.role == Role::norm || p.module == Module::tokens) return false;
    return !(head_changed && p.module == Module::head);
  }
  void shrink(const Param& p, const Tensor& direction, double& kept, double& neurons) const {
    std::vector<double> w = p.master.to_host();
    const std::vector<double> e = direction.slice(p.offset, p.size()).to_host();
    const std::size_t rows = p.shape.rank() == 2 ? std::size_t(p.shape.rows()) : 1, columns = w.size() / rows;
    for (std::size_t row = 0; row < rows; ++row) {
      double ew = 0.0, ee = 0.0, ww = 0.0;
      for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
        ew += e[i] * w[i], ee += e[i] * e[i], ww += w[i] * w[i];
      const double cosine = ee > 0.0 && ww > 0.0 ? ew / std::sqrt(ee * ww) : 0.0;
      // A direction that is not finite says nothing about the row.
      const double s = std::isfinite(cosine) ? std::clamp(cosine, lambda_, 1.0) : 1.0;
      for (std::size_t i = row * columns; i < (row + 1) * columns; ++i) w[i] *= s;
      kept += s, neurons += 1.0;
    }
    p.master.copy_from(Tensor::from(w, p.shape, p.master.dtype(), arena_.device));
  }

  Parameters params_;
  ParamArena& arena_;
  double alpha_ = 0.0, lambda_ = 0.0;
  bool clears_ = true;
  Tensor kept_ =
      Tensor::from(std::vector<double>{1.0}, {1}, DType::f64, kCpu);  // mean s of the last boundary, for the log
};

}  // namespace

std::unique_ptr<Intervention> make_dash(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Dash>(spec, p);
}

}  // namespace eg
