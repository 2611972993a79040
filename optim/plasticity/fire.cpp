// optim/plasticity/fire.cpp - FIRE (Han et al. 2026, arXiv:2602.08040): when a new task begins, Wq and Wk of every block
// become isometries, W = sqrt(rows / cols) times the orthogonal factor of W's polar decomposition: the nearest matrix
// whose singular values are all equal (methods.md B.12).
//
// The factor comes from X = 1.5 X - 0.5 X X^T X, after X = W / |W|. Ten iterations, the published number, do not bring
// small singular values all the way: of |W| = 1, 0.001 ends at 0.06, 0.01 at 0.53, 0.05 at 0.9995. A fresh 768 x 768
// matrix is off by 1%; iterations=15 makes it exact.
#include <algorithm>
#include <cmath>

#include "optim/hidden_matrices.h"
#include "optim/newton_schulz.h"
#include "optim/plasticity/intervention.h"

namespace eg {
namespace {

constexpr OddPolynomial kCubic{1.5, -0.5, 0.0};

class Fire final : public Intervention {
 public:
  Fire(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    iterations_ = int(r.integer("iterations", 10, 1, 1000));
    const std::string tensors = r.text("tensors", "qk");
    clears_ = r.flag("clear-optimizer", false);
    r.finish();
    check(!tensors.empty() && tensors.find_first_not_of("qkvom") == std::string::npos, Kind::usage, [&] {
      return cat("fire: tensors=", tensors, " must name some of q, k, v, o (the output projection) and m (the MLP)");
    });
    require_trainable_matrices(p, spec.name);
    for (const HiddenMatrix& m : hidden_matrices(p)) {
      const char letter = m.part ? m.part : m.param->module == Module::proj ? 'o' : 'm';
      if (tensors.find(letter) != std::string::npos) matrices_.push_back(m);
    }
  }
  std::string name() const override { return "fire"; }
  Stage stage() const override { return Stage::replacement; }
  void task_boundary(StepContext& ctx) override {
    if (matrices_.empty()) return;
    std::int64_t largest = 1, side = 1;
    for (const HiddenMatrix& m : matrices_)
      largest = std::max(largest, m.size()), side = std::max(side, std::min(m.rows, m.cols));
    // A boundary is rare: its memory lives no longer than it, and lengths are taken on the host.
    const DType type = arena_.master.dtype();
    const NewtonSchulz polar(arena_.device, kCubic, type, type, largest, side);
    for (const HiddenMatrix& m : matrices_) project(m, polar, ctx.stream);
    runtime(arena_.device).synchronize(ctx.stream);
    arena_.refresh_work();
    ctx.weights_changed = true;
  }
  bool clears_optimizer() const override { return clears_; }
  std::string describe() const override {
    return cat("at a new task ", matrices_.size(), " matrices become isometries by ", iterations_, " iterations",
               clears_ ? ", moments cleared" : "");
  }

 private:
  void project(const HiddenMatrix& m, const NewtonSchulz& polar, Stream stream) const {
    const Tensor weight = arena_.master.slice(m.begin, m.size());
    double sum = 0.0;
    for (const double w : weight.to_host()) sum += w * w;
    if (sum == 0.0) return;  // zeros have no nearest isometry
    const auto scale = [&](double factor, const TensorView& from, const TensorView& to) {
      const Tensor f = Tensor::from(std::vector<double>{factor}, {1}, arena_.device.statistic(), arena_.device);
      EVERGRAD_CALL(arena_.device, scale_by, ScaleBy{.x = from, .factor = f.view(), .y = to}, stream);
      runtime(arena_.device).synchronize(stream);  // f lives until here
    };
    scale(1.0 / std::sqrt(sum), part_of(arena_.master, m), polar.input(m.rows, m.cols));
    const TensorView orthogonal = polar.run(m.rows, m.cols, iterations_, stream);
    scale(std::sqrt(double(m.rows) / double(m.cols)), orthogonal, part_of(arena_.master, m));
  }

  ParamArena& arena_;
  int iterations_ = 10;
  bool clears_ = false;
  std::vector<HiddenMatrix> matrices_;
};

}  // namespace

std::unique_ptr<Intervention> make_fire(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Fire>(spec, p);
}

}  // namespace eg
