// apps/explain/cost.cpp - see cost.h. T: tokens of the batch; R: tokens behind the mixing, which in the last block is one
// per image when only the class token goes on (VitConfig::narrow_last). Both are summed over blocks before they become
// costs, so that a row of the table is one kind of call.
#include "apps/explain/cost.h"

#include <algorithm>

#include "apps/explain/update_state.h"
#include "layers/vit.h"
#include "optim/arrow_targets.h"

namespace eg {
namespace {

/// Writes rows for one model and batch. `e`, `g`, `w`, `s`: bytes of an activation, of a parameter's gradient, of its
/// working copy (0: none), of a statistic.
class Counter {
 public:
  explicit Counter(const StepShape& shape)
      : c_(shape.vit),
        method_(shape.method),
        b_(double(shape.batch)),
        n_(double(c_.tokens())),
        d_(c_.dim),
        f_(double(c_.hidden())),
        u_(double(c_.hidden_outputs())),
        k_(double(c_.channels) * c_.patch * c_.patch),
        e_(double(size_of(c_.precision))),
        s_(c_.precision == DType::f64 ? 8.0 : 4.0),
        g_(shape.narrow_gradients ? e_ : s_),
        w_(c_.precision == DType::bf16 ? 2.0 : 0.0),
        t_(b_ * n_),
        front_(t_ * c_.depth),
        back_(0.0) {
    for (int i = 0; i < c_.depth; ++i) back_ += c_.narrows(i) ? b_ : t_;
  }

  std::vector<Operation> count() {
    forward();
    backward();
    update();
    return std::move(rows_);
  }

 private:
  using I = std::int64_t;
  /// Of a product [rows, in] x [in, out].
  std::string matrices(double rows, double in, double out) const { return cat(I(rows), " x ", I(in), " x ", I(out)); }
  std::string tokens_shape(double width) const { return cat("[", I(b_), ",", I(n_), ",", I(width), "]"); }
  Operation& row(Pass pass, const std::string& name, const std::string& shape, I calls, double flops, double bytes) {
    rows_.push_back({.pass = pass, .name = name, .shape = shape, .calls = calls, .flops = flops, .bytes = bytes});
    return rows_.back();
  }
  Operation& product(Pass pass, const std::string& name, const std::string& shape, I calls, double flops,
                     double bytes) {
    Operation& o = row(pass, name, shape, calls, flops, bytes);
    o.product = true;
    return o;
  }
  /// y [rows, out] = x [rows, in] w^T, `rows` of all calls together.
  Operation& linear(const std::string& name, I calls, double rows, double in, double out, double extra_bytes = 0.0) {
    Operation& o = product(Pass::forward, name, matrices(t_, in, out), calls, 2 * rows * in * out,
                           e_ * (rows * (in + out) + double(calls) * in * out) + extra_bytes);
    o.parameters = calls * (I(in) * I(out) + I(out));
    return o;
  }
  /// Its two gradients; the first is of the input.
  void linear_gradients(const std::string& name, I calls, double rows, double in, double out,
                        double extra_bytes = 0.0) {
    product(Pass::backward, name + ": d input", matrices(t_, out, in), calls, 2 * rows * in * out,
            e_ * (rows * (in + out) + double(calls) * in * out) + extra_bytes);
    weight_gradient(name, calls, rows, in, out);
  }
  void weight_gradient(const std::string& name, I calls, double rows, double in, double out) {
    product(Pass::backward, name + ": d weight", matrices(out, t_, in), calls, 2 * rows * in * out,
            e_ * rows * (in + out) + g_ * double(calls) * in * out);
  }

  void forward() {
    const Pass p = Pass::forward;
    const I L = c_.depth;
    const double patches = b_ * double(c_.patches()), pixels = b_ * c_.channels * double(c_.image_size) * c_.image_size;
    row(p, "patchify", cat("[", I(b_), ",", c_.channels, ",", c_.image_size, ",", c_.image_size, "]"), 1,
        2 * patches * k_, pixels + e_ * patches * k_)
        .kept = e_ * patches * k_;
    Operation& embed = linear("patch embed", 1, patches, k_, d_);
    embed.shape = matrices(patches, k_, d_);
    const I prefix = c_.prefix(), positions = c_.pos == PosEmbed::learned ? (c_.registers ? c_.patches() : I(n_)) : 0;
    row(p, "tokens + position", tokens_shape(d_), 1, t_ * d_, e_ * (patches * d_ + t_ * d_ + n_ * d_)).parameters =
        (prefix + positions) * c_.dim;
    block_forward();
    const double seen = c_.class_token ? b_ : t_;
    Operation& norm = row(p, "final norm", cat("[", I(b_), ",", I(d_), "]"), 1, 9 * seen * d_, e_ * 4 * seen * d_);
    norm.parameters = 2 * c_.dim, norm.kept = e_ * 4 * b_ * d_;
    Operation& head = linear("head", 1, b_, d_, c_.classes);
    head.shape = matrices(b_, d_, c_.classes);
    row(p, "loss, its gradient", cat("[", I(b_), ",", c_.classes, "]"), 1, 12 * b_ * c_.classes,
        e_ * 2 * b_ * c_.classes)
        .kept = e_ * 2 * b_ * c_.classes;
    if (c_.recompute)
      for (Operation& o : rows_)
        if (o.calls == L && o.name != "final norm") forgotten(o);
  }

  /// With recomputation a block keeps its input alone.
  void forgotten(Operation& o) const {
    if (in_block(o)) o.kept = o.name == "norm 1" ? e_ * front_ * d_ : 0.0;
  }
  static bool in_block(const Operation& o) {
    static const char* const outside[] = {"patchify",   "patch embed", "tokens + position",
                                          "final norm", "head",        "loss, its gradient"};
    return o.pass == Pass::forward &&
           std::none_of(std::begin(outside), std::end(outside), [&](const char* name) { return o.name == name; });
  }

  void block_forward() {
    const Pass p = Pass::forward;
    const I L = c_.depth, D = c_.dim;
    // The first norm of the first block has no branch to add: it reads and writes half as much.
    Operation& norm1 = row(p, "norm 1", tokens_shape(d_), L, 9 * front_ * d_, e_ * (4 * front_ - 2 * t_) * d_);
    norm1.parameters = L * 2 * D, norm1.kept = front_ * (e_ * 2 * d_ + 2 * s_);
    linear("qkv", L, front_, d_, 3 * d_).kept = e_ * front_ * 3 * d_;
    if (c_.qk_norm) {
      Operation& o = row(p, "norm of q and k", tokens_shape(2 * d_), L, 18 * front_ * d_, e_ * 6 * front_ * d_);
      o.parameters = L * 4 * (D / c_.heads), o.kept = front_ * (e_ * 3 * d_ + s_ * 4 * c_.heads);
    }
    Operation& attention = product(p, "attention", cat(I(b_), "x", c_.heads, " x [", I(n_), ",", D / c_.heads, "]"), L,
                                   4 * front_ * n_ * d_, front_ * (e_ * 4 * d_ + s_ * c_.heads));
    attention.kept = front_ * (e_ * d_ + s_ * c_.heads);
    linear("proj", L, back_, d_, d_);
    if (c_.layer_scale > 0.0) layer_scale();
    Operation& norm2 = row(p, "norm 2 + residual", tokens_shape(d_), L, 9 * back_ * d_, e_ * 4 * back_ * d_);
    norm2.parameters = L * 2 * D, norm2.kept = back_ * (e_ * 2 * d_ + 2 * s_);
    if (c_.activation == Activation::crelu) {
      linear("fc1", L, back_, d_, f_).kept = e_ * back_ * f_;
      row(p, "CReLU", tokens_shape(f_), L, 2 * back_ * f_, e_ * 3 * back_ * f_).kept = e_ * back_ * u_;
    } else {
      linear("fc1 + GELU", L, back_, d_, f_, e_ * back_ * f_).kept = e_ * back_ * 2 * f_;
    }
    linear("fc2", L, back_, u_, d_);
    if (c_.layer_scale > 0.0) layer_scale();
  }
  void layer_scale() {
    Operation& o = row(Pass::forward, "layer scale", tokens_shape(d_), c_.depth, back_ * d_, e_ * 2 * back_ * d_);
    o.parameters = I(c_.depth) * c_.dim, o.kept = e_ * back_ * d_;
  }

  void backward() {
    const Pass p = Pass::backward;
    const I L = c_.depth;
    const double seen = c_.class_token ? b_ : t_, patches = b_ * double(c_.patches());
    linear_gradients("head", 1, b_, d_, c_.classes);
    rows_[rows_.size() - 2].shape = matrices(b_, c_.classes, d_), rows_.back().shape = matrices(c_.classes, b_, d_);
    row(p, "final norm", cat("[", I(b_), ",", I(d_), "]"), 1, 14 * seen * d_, e_ * 4 * seen * d_);
    if (c_.recompute) {
      Operation again{
          .pass = p, .name = "blocks, forward again", .shape = tokens_shape(d_), .calls = L, .product = true};
      for (const Operation& o : rows_)
        if (in_block(o)) again.flops += o.flops, again.bytes += o.bytes;
      rows_.push_back(again);
    }
    if (c_.layer_scale > 0.0) row(p, "layer scale", tokens_shape(d_), 2 * L, 6 * back_ * d_, e_ * 6 * back_ * d_);
    const bool crelu = c_.activation == Activation::crelu;
    linear_gradients(crelu ? "fc2" : "fc2 + GELU", L, back_, u_, d_, crelu ? 0.0 : e_ * back_ * f_);
    if (crelu) row(p, "CReLU", tokens_shape(f_), L, 2 * back_ * f_, e_ * 4 * back_ * f_);
    linear_gradients("fc1", L, back_, d_, f_);
    row(p, "norm 2 + residual", tokens_shape(d_), L, 14 * back_ * d_, e_ * 4 * back_ * d_);
    linear_gradients("proj", L, back_, d_, d_);
    product(p, "attention", cat(I(b_), "x", c_.heads, " x [", I(n_), ",", c_.dim / c_.heads, "]"), L,
            10 * front_ * n_ * d_, front_ * (e_ * 8 * d_ + s_ * c_.heads));
    if (c_.qk_norm) row(p, "norm of q and k", tokens_shape(2 * d_), L, 28 * front_ * d_, e_ * 8 * front_ * d_);
    linear_gradients("qkv", L, front_, d_, 3 * d_);
    row(p, "norm 1", tokens_shape(d_), L, 14 * front_ * d_, e_ * 4 * front_ * d_);
    row(p, "tokens + position", tokens_shape(d_), 1, t_ * d_, e_ * t_ * d_);
    weight_gradient("patch embed", 1, patches, k_, d_);
    rows_.back().shape = matrices(d_, patches, k_);
  }

  void update() {
    const Pass p = Pass::update;
    Vit v = make_vit(c_);
    const std::vector<Param*> params = parameters(v);
    double all = 0.0;
    for (const Param* q : params) all += double(q->size());
    const auto vector = [](double size) { return cat("[", I(size), "]"); };
    row(p, "gradient norm", vector(all), 1, 2 * all, g_ * all);
    const std::string& name = method_.name;
    const double master = 2 * s_;  // read and written
    const bool arrow = name == "arrow" && method_.with.empty();
    if (!arrow && name != "adamw") {
      // Gradient, weight and moments pass once. Arithmetic of a rule that is not known by name: as Adam's per moment.
      const double moments = moments_per_weight(method_);
      const double flops = name == "sgd" ? 2 + 2 * moments : 4 + 4 * moments;
      row(p, name == "sgd" ? "SGD" : cat("rule: ", name), vector(all), 1, flops * all,
          (g_ + (1 + moments) * master + w_) * all);
      return;
    }
    double own = 0.0;
    if (arrow) {
      const ArrowSettings a = read_arrow_settings(method_, c_.depth, 0.0);
      const std::vector<ArrowRun> runs = arrow_runs(a, {params, nullptr, c_.depth});
      for (const ArrowRun& r : runs) own += double(r.size);
      const I calls = I(runs.size());
      const double window = a.solve.window, ring = a.bf16_ring ? 2.0 : g_;
      const std::string shape = cat(I(window) + 1, " x [", I(own), "]");
      // The new gradient becomes a column, and its dot products with the others a row of the Gram matrix.
      row(p, "ARROW: observe", shape, calls, 2 * (window + 1) * own, (g_ + ring + window * ring) * own);
      row(p, "ARROW: base moments", vector(own), calls, 8 * own, (g_ + 2 * master) * own);
      row(p, "ARROW: step", shape, calls, 2 * (window + 1) * own, (window * ring + master + w_) * own);
    }
    const double moments = arrow ? 2 : moments_per_weight(method_);
    row(p, "AdamW", vector(all - own), 1, 12 * (all - own), (g_ + (1 + moments) * master + w_) * (all - own));
  }

  const VitConfig c_;
  const MethodSpec method_;
  const double b_, n_, d_, f_, u_, k_, e_, s_, g_, w_, t_, front_;
  double back_;
  std::vector<Operation> rows_;
};

}  // namespace

std::vector<Operation> training_step(const StepShape& s) {
  check_config(s.vit);
  return Counter(s).count();
}

double floor_seconds(const Operation& o, const Roof& roof) {
  const double compute = roof.gflops > 0.0 ? o.flops / roof.gflops * 1e-9 : 0.0;
  return std::max(compute, o.bytes / roof.gb_per_s * 1e-9);
}

bool compute_bound(const Operation& o, const Roof& roof) {
  return roof.gflops > 0.0 && o.flops / roof.gflops > o.bytes / roof.gb_per_s;
}

}  // namespace eg
