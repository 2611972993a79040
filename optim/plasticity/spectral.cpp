// optim/plasticity/spectral.cpp - penalties on singular values (methods.md B.6).
//
//   spectral  strength (sigma^k - 1)^2 per matrix, sigma its largest singular value, and strength |b|^(2k) per bias; gains
//             of norms are pulled to 1 (Lewandowski et al. 2025, arXiv:2406.06811). sigma comes from power iteration, one
//             step of it per update, which begins where the last one ended
//   parseval  strength |W W^T - s I|^2 per matrix, over its smaller side: all singular values are pulled to sqrt(s)
//             (Cisse et al. 2017, arXiv:1704.08847; for plasticity Chung et al. 2024)
//
// Both stand in the penalty's place: what they add to the gradient is clipped and preconditioned like the loss's own.
#include <algorithm>
#include <cmath>

#include "engine/rng.h"
#include "optim/hidden_matrices.h"
#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Spectral final : public Intervention {
 public:
  Spectral(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    strength_ = r.number("strength", 1e-3, 0.0, 1e6);
    k_ = int(r.integer("k", 3, 1, 16));
    const bool biases = r.flag("biases", true), norms = r.flag("norms", true), head = r.flag("head", true);
    r.finish();
    groups_.resize(std::size_t(p.depth) + 1);
    gains_.resize(groups_.size());
    for (const HiddenMatrix& m : hidden_matrices(p)) add(p, m, 1.0);
    for (const Param* param : p.list) {
      if (param->frozen) continue;
      const bool last = param->module == Module::head, flat = param->shape.rank() == 1;
      if (last && !head) continue;
      if (!flat && (last || param->module == Module::patch_embed)) add(p, whole(*param), 1.0);
      // A norm's gains, the entries of a diagonal matrix, begin at 1; its offsets are biases.
      const bool gain = param->role == Role::norm && param->init.rule == Init::Rule::ones;
      const bool offset = param->role == Role::norm && param->init.rule == Init::Rule::zeros;
      const bool bias = flat && (last || offset || param->role == Role::bias);
      if (bias && biases) add(p, whole(*param), 0.0);
      if (gain && norms) gains_[group_of(p, *param)].push_back(param);
    }
    std::int64_t rows = 1, cols = 1, longest_gain = 1;
    for (Group& g : groups_)
      for (Target& t : g) {
        t.u = rows, rows += (t.matrix.rows + 15) / 16 * 16;
        cols = std::max(cols, t.matrix.cols);
        t.sigma = count_++;
      }
    for (const auto& group : gains_)
      for (const Param* param : group) longest_gain = std::max(longest_gain, param->size());
    const DType stat = arena_.master.dtype();
    const Key k = key(0, "spectral", "u");
    std::vector<double> start(std::size_t(rows), 0.0);
    for (const Group& g : groups_)
      for (const Target& t : g) {
        double sum = 0.0;
        for (std::int64_t i = t.u; i < t.u + t.matrix.rows; ++i)
          start[std::size_t(i)] = k.normal(std::uint64_t(i)), sum += start[std::size_t(i)] * start[std::size_t(i)];
        for (std::int64_t i = t.u; i < t.u + t.matrix.rows; ++i) start[std::size_t(i)] /= std::sqrt(sum);
      }
    u_ = Tensor::from(start, {rows}, stat, arena_.device);
    next_ = u_.clone();
    v_ = Tensor::zeros({cols}, stat, arena_.device);
    sigma_ = Tensor::zeros({std::max<std::int64_t>(1, count_)}, stat, arena_.device);
    ones_ = Tensor::from(std::vector<double>(std::size_t(longest_gain), 1.0), {longest_gain}, stat, arena_.device);
  }
  std::string name() const override { return "spectral"; }
  Stage stage() const override { return Stage::noise; }
  bool rewrites_weights() const override { return false; }
  void penalty(int group, StepContext& ctx) override {
    if (strength_ == 0.0) return;
    for (const Target& t : groups_[std::size_t(group)])
      EVERGRAD_CALL(arena_.device, spectral_penalty,
                    SpectralPenalty{.grad = part_of(arena_.grad, t.matrix),
                                    .weight = part_of(arena_.master, t.matrix),
                                    .u = u_.slice(t.u, t.matrix.rows).view(),
                                    .next = next_.slice(t.u, t.matrix.rows).view(),
                                    .v = v_.slice(0, t.matrix.cols).view(),
                                    .sigma = sigma_.slice(t.sigma, 1).view(),
                                    .strength = strength_,
                                    .target = t.target,
                                    .k = k_},
                    ctx.stream);
    for (const Param* gain : gains_[std::size_t(group)]) {
      const WeightSegment s{.begin = 0, .end = gain->size(), .pull = float(2.0 * strength_)};
      EVERGRAD_CALL(arena_.device, weight_penalty,
                    WeightPenalty{.grad = gain->grad.view(),
                                  .weight = gain->master.view(),
                                  .anchor = ones_.slice(0, gain->size()).view(),
                                  .segments = {&s, 1}},
                    ctx.stream);
    }
  }
  /// The vectors go on where they are now; of a step that was not finite nothing stays.
  void after_update(StepContext& ctx) override {
    if (strength_ == 0.0) return;
    const WeightSegment all{.begin = 0, .end = u_.size(), .keep = 0.0f, .pull = 1.0f};
    EVERGRAD_CALL(
        arena_.device, weight_perturb,
        WeightPerturb{.weight = u_.view(), .anchor = next_.view(), .segments = {&all, 1}, .step = ctx.device_step},
        ctx.stream);
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override { visit("vectors", u_); }
  std::size_t state_bytes() const override { return u_.bytes(); }
  std::map<std::string, double> scalars() override {
    const std::vector<double> sigma = sigma_.to_host();
    double largest = 0.0;
    for (const Group& g : groups_)
      for (const Target& t : g)
        if (t.target != 0.0) largest = std::max(largest, sigma[std::size_t(t.sigma)]);
    return {{"largest", largest}};
  }
  std::string describe() const override {
    std::size_t matrices = 0;
    for (const Group& g : groups_)
      matrices += std::size_t(std::count_if(g.begin(), g.end(), [](const Target& t) { return t.target != 0.0; }));
    return cat("penalty ", strength_, " (sigma^", k_, " - 1)^2 on the largest singular value of ", matrices,
               " matrices");
  }

 private:
  struct Target {
    HiddenMatrix matrix;
    double target = 1.0;
    std::int64_t u = 0, sigma = 0;  // places in u_ and sigma_
  };
  using Group = std::vector<Target>;
  static std::size_t group_of(const Parameters& p, const Param& param) {
    return std::size_t(param.block < 0 ? p.depth : param.block);
  }
  /// A vector is a matrix of one row: its largest singular value is its length.
  static HiddenMatrix whole(const Param& p) {
    const std::int64_t rows = p.shape.rank() == 1 ? 1 : p.shape.rows();
    return {&p, 0, p.offset, rows, p.size() / rows};
  }
  void add(const Parameters& p, const HiddenMatrix& m, double target) {
    groups_[group_of(p, *m.param)].push_back({m, target});
  }

  ParamArena& arena_;
  double strength_ = 0.0;
  int k_ = 3;
  std::vector<Group> groups_;
  std::vector<std::vector<const Param*>> gains_;
  std::int64_t count_ = 0;
  Tensor u_, next_;  // left singular vectors: of the last finite step, and of this one
  Tensor v_, sigma_, ones_;
};

class Parseval final : public Intervention {
 public:
  Parseval(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    strength_ = r.number("strength", 1e-3, 0.0, 1e6);
    scale_ = r.number("s", 1.0, 0.0, 1e6);
    r.finish();
    require_trainable_matrices(p, spec.name);
    groups_.resize(std::size_t(p.depth) + 1);
    std::int64_t largest = 1;
    for (const HiddenMatrix& m : hidden_matrices(p)) {
      groups_[std::size_t(m.param->block)].push_back(m);
      largest = std::max(largest, m.size()), side_ = std::max(side_, std::min(m.rows, m.cols));
    }
    const DType type = arena_.master.dtype();
    gram_ = Tensor::zeros({side_ * side_}, type, arena_.device);
    product_ = Tensor::zeros({largest}, type, arena_.device);
  }
  std::string name() const override { return "parseval"; }
  Stage stage() const override { return Stage::noise; }
  bool rewrites_weights() const override { return false; }
  /// grad += 4 strength (W W^T - s I) W = 4 strength (W W^T W - s W), or its transposed form for tall matrices.
  void penalty(int group, StepContext& ctx) override {
    if (strength_ == 0.0) return;
    for (const HiddenMatrix& m : groups_[std::size_t(group)]) {
      const bool tall = m.rows > m.cols;
      const std::int64_t n = std::min(m.rows, m.cols);
      const TensorView w = part_of(arena_.master, m), grad = part_of(arena_.grad, m);
      const TensorView gram{gram_.data(), gram_.dtype(), {n, n}}, product{product_.data(), product_.dtype(), w.shape};
      EVERGRAD_CALL(arena_.device, matmul, Matmul{.a = w, .b = w, .c = gram, .transpose_a = tall, .transpose_b = !tall},
                    ctx.stream);
      EVERGRAD_CALL(arena_.device, matmul, Matmul{.a = tall ? w : gram, .b = tall ? gram : w, .c = product},
                    ctx.stream);
      EVERGRAD_CALL(arena_.device, axpy, Axpy{.x = w, .y = product, .alpha = -scale_}, ctx.stream);
      EVERGRAD_CALL(arena_.device, axpy, Axpy{.x = product, .y = grad, .alpha = 4.0 * strength_}, ctx.stream);
    }
  }
  std::string describe() const override {
    return cat("Parseval penalty ", strength_, " |W W^T - ", scale_, " I|^2 on the matrices of every block");
  }

 private:
  ParamArena& arena_;
  double strength_ = 0.0, scale_ = 1.0;
  std::int64_t side_ = 1;
  std::vector<std::vector<HiddenMatrix>> groups_;
  Tensor gram_, product_;
};

}  // namespace

std::unique_ptr<Intervention> make_spectral(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Spectral>(spec, p);
}
std::unique_ptr<Intervention> make_parseval(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Parseval>(spec, p);
}

}  // namespace eg
