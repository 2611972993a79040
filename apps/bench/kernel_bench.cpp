// apps/bench/kernel_bench.cpp - see kernel_bench.h. Inputs are random, never zeros: data-dependent power draw makes
// products of zeros faster than real ones.
#include "apps/bench/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/rng.h"

namespace eg {

double median_ms(const std::function<void()>& body, double seconds) {
  using Clock = std::chrono::steady_clock;
  body();
  std::vector<double> times;
  const auto start = Clock::now();
  do {
    const auto t = Clock::now();
    body();
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - t).count());
  } while (times.size() < 5 || std::chrono::duration<double>(Clock::now() - start).count() < seconds);
  std::nth_element(times.begin(), times.begin() + std::ptrdiff_t(times.size() / 2), times.end());
  return times[times.size() / 2];
}

namespace {

class Bench {
 public:
  Bench(Device device, DType activation, const BenchShape& shape, std::string filter, double seconds)
      : device_(device), x_(activation), s_(shape), filter_(std::move(filter)), seconds_(seconds) {}

  std::vector<BenchRow> run() {
    products();
    attention();
    pointwise();
    updates();
    return std::move(rows_);
  }

 private:
  Tensor random(const Shape& shape, DType dtype, double scale = 1.0) {
    const Key k = key(7, "bench", "data", std::uint32_t(++draws_));
    std::vector<float> values(static_cast<std::size_t>(shape.size()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = float((k.uniform(i) * 2 - 1) * 1.7 * scale);
    return Tensor::from(values, shape, dtype, device_);
  }
  Tensor make(const Shape& shape, DType dtype) { return Tensor::zeros(shape, dtype, device_); }
  /// A plain struct in the device's memory.
  template <class T>
  Tensor place(const T& value) {
    const Tensor t = make({std::int64_t(sizeof(T))}, DType::u8);
    runtime(device_).copy_from_host(t.data(), &value, sizeof(T), {});
    runtime(device_).synchronize({});
    return t;
  }
  double x_bytes() const { return double(size_of(x_)); }

  template <class Args>
  void time(const std::string& name, void (*KernelTable::*entry)(const Args&, Stream), const Args& args, double flops,
            double bytes) {
    if (name.find(filter_) == std::string::npos) return;
    // A GPU's launches are queued, so that waiting for the host is not measured with each.
    const int launches = device_.type == DeviceType::cuda ? 20 : 1;
    const auto body = [&] {
      for (int i = 0; i < launches; ++i) call(device_, entry, name.c_str(), args);
      runtime(device_).synchronize({});
    };
    rows_.push_back({name, median_ms(body, seconds_) / launches, flops, bytes, 0.0, ""});
  }

  void products() {
    const std::int64_t r = s_.batch * s_.tokens, d = s_.dim, h = s_.hidden;
    const Tensor x = random({r, d}, x_), hidden = random({r, h}, x_), aux = random({r, h}, x_),
                 wide = random({r, 3 * d}, x_), y = random({r, d}, x_);
    const Tensor w1 = random({h, d}, x_, .05), w2 = random({d, h}, x_, .05), wqkv = random({3 * d, d}, x_, .05),
                 wproj = random({d, d}, x_, .05);
    const Tensor b1 = random({h}, x_), bqkv = random({3 * d}, x_), b = random({d}, x_), db1 = make({h}, DType::f32),
                 dbqkv = make({3 * d}, DType::f32), db = make({d}, DType::f32);
    const Tensor dw1 = make({h, d}, DType::f32), dw2 = make({d, h}, DType::f32), dwqkv = make({3 * d, d}, DType::f32),
                 dwproj = make({d, d}, DType::f32);
    const double e = x_bytes(), rd = double(r) * double(d), rh = double(r) * double(h), dh = double(d) * double(h),
                 dd = double(d) * double(d);
    time("matmul qkv", &KernelTable::matmul,
         Matmul{.a = x.view(),
                .b = wqkv.view(),
                .c = wide.view(),
                .transpose_b = true,
                .epilogue = Epilogue::bias,
                .bias = bqkv.view()},
         6 * rd * double(d), e * (4 * rd + 3 * dd));
    time("matmul proj", &KernelTable::matmul,
         Matmul{.a = x.view(),
                .b = wproj.view(),
                .c = y.view(),
                .transpose_b = true,
                .epilogue = Epilogue::bias,
                .bias = b.view()},
         2 * rd * double(d), e * (2 * rd + dd));
    time("matmul fc1 + bias + gelu", &KernelTable::matmul,
         Matmul{.a = x.view(),
                .b = w1.view(),
                .c = hidden.view(),
                .transpose_b = true,
                .epilogue = Epilogue::bias_gelu,
                .bias = b1.view(),
                .aux = aux.view()},
         2 * rd * double(h), e * (rd + 2 * rh + dh));
    time("matmul fc2", &KernelTable::matmul,
         Matmul{.a = hidden.view(), .b = w2.view(), .c = x.view(), .transpose_b = true}, 2 * rd * double(h),
         e * (rd + rh + dh));
    time("matmul d_hidden + dgelu", &KernelTable::matmul,
         Matmul{.a = x.view(),
                .b = w2.view(),
                .c = hidden.view(),
                .epilogue = Epilogue::dgelu,
                .aux = aux.view(),
                .bias_grad = db1.view()},
         2 * rd * double(h), e * (rd + 2 * rh + dh));
    time("matmul d_qkv_input", &KernelTable::matmul, Matmul{.a = wide.view(), .b = wqkv.view(), .c = x.view()},
         6 * rd * double(d), e * (4 * rd + 3 * dd));
    time("matmul d_proj_input", &KernelTable::matmul, Matmul{.a = x.view(), .b = wproj.view(), .c = y.view()},
         2 * rd * double(d), e * (2 * rd + dd));
    time("matmul d_fc1_input", &KernelTable::matmul, Matmul{.a = hidden.view(), .b = w1.view(), .c = x.view()},
         2 * rd * double(h), e * (rd + rh + dh));
    time("matmul d_fc1_weight", &KernelTable::matmul,
         Matmul{.a = hidden.view(), .b = x.view(), .c = dw1.view(), .transpose_a = true}, 2 * rd * double(h),
         e * (rd + rh) + 4 * dh);
    time("matmul d_qkv_weight + bias", &KernelTable::matmul,
         Matmul{.a = wide.view(),
                .b = x.view(),
                .c = dwqkv.view(),
                .transpose_a = true,
                .epilogue = Epilogue::bias_grad_a,
                .bias_grad = dbqkv.view()},
         6 * rd * double(d), e * 4 * rd + 12 * dd);
    // Of two tensors, as in a step: one tensor twice would be read once.
    time("matmul d_proj_weight + bias", &KernelTable::matmul,
         Matmul{.a = x.view(),
                .b = y.view(),
                .c = dwproj.view(),
                .transpose_a = true,
                .epilogue = Epilogue::bias_grad_a,
                .bias_grad = db.view()},
         2 * rd * double(d), e * 2 * rd + 4 * dd);
    time("matmul d_fc2_weight + bias", &KernelTable::matmul,
         Matmul{.a = x.view(),
                .b = hidden.view(),
                .c = dw2.view(),
                .transpose_a = true,
                .epilogue = Epilogue::bias_grad_a,
                .bias_grad = db.view()},
         2 * rd * double(h), e * (rd + rh) + 4 * dh);
  }

  void attention() {
    const std::int64_t b = s_.batch, n = s_.tokens, h = s_.heads, w = s_.dim / s_.heads;
    const Tensor qkv = random({b, n, 3, h, w}, x_), out = make({b, n, h, w}, x_),
                 lse = make({b, h, n}, device_.statistic());
    const Tensor dout = random({b, n, h, w}, x_), dqkv = make({b, n, 3, h, w}, x_);
    const double scale = 1.0 / std::sqrt(double(w)), pairs = double(b * n * n) * double(s_.dim),
                 elements = double(b * n) * double(s_.dim);
    const AttentionFwd forward{.qkv = qkv.view(), .out = out.view(), .lse = lse.view(), .scale = scale};
    call(device_, &KernelTable::attention_fwd, "attention_fwd", forward);
    time("attention_fwd", &KernelTable::attention_fwd, forward, 4 * pairs, x_bytes() * 4 * elements);
    time("attention_bwd", &KernelTable::attention_bwd,
         AttentionBwd{.qkv = qkv.view(),
                      .out = out.view(),
                      .lse = lse.view(),
                      .dout = dout.view(),
                      .dqkv = dqkv.view(),
                      .scale = scale},
         10 * pairs, x_bytes() * 8 * elements);
  }

  void pointwise() {
    const std::int64_t r = s_.batch * s_.tokens, d = s_.dim;
    const DType stat = device_.statistic();
    const Tensor x = random({r, d}, x_), res = random({r, d}, x_), sum = make({r, d}, x_), y = make({r, d}, x_);
    const Tensor gamma = random({d}, x_), beta = random({d}, x_), mean = make({r}, stat), rstd = make({r}, stat);
    const Tensor dgamma = make({d}, DType::f32), dbeta = make({d}, DType::f32), dx = make({r, d}, x_);
    const double rd = double(r) * double(d), e = x_bytes();
    const LayerNormFwd forward{.x = x.view(),
                               .residual = res.view(),
                               .sum = sum.view(),
                               .gamma = gamma.view(),
                               .beta = beta.view(),
                               .y = y.view(),
                               .mean = mean.view(),
                               .rstd = rstd.view()};
    call(device_, &KernelTable::layer_norm_fwd, "layer_norm_fwd", forward);
    time("layer_norm_fwd + residual", &KernelTable::layer_norm_fwd, forward, 9 * rd, e * 4 * rd);
    time("layer_norm_bwd + residual", &KernelTable::layer_norm_bwd,
         LayerNormBwd{.dy = y.view(),
                      .dsum = res.view(),
                      .x = sum.view(),
                      .gamma = gamma.view(),
                      .mean = mean.view(),
                      .rstd = rstd.view(),
                      .dx = dx.view(),
                      .dgamma = dgamma.view(),
                      .dbeta = dbeta.view()},
         14 * rd, e * 4 * rd);
    time("gelu_fwd", &KernelTable::gelu_fwd, GeluFwd{.x = x.view(), .y = y.view()}, 12 * rd, e * 2 * rd);
    time("gelu_bwd", &KernelTable::gelu_bwd, GeluBwd{.x = x.view(), .dy = res.view(), .dx = dx.view()}, 16 * rd,
         e * 3 * rd);
    time("add", &KernelTable::add, Add{.a = x.view(), .b = res.view(), .out = y.view()}, rd, e * 3 * rd);

    const Tensor logits = random({s_.batch, s_.classes}, x_), dlogits = make({s_.batch, s_.classes}, x_);
    const std::vector<std::int32_t> label_values(static_cast<std::size_t>(s_.batch), 1);
    const Tensor labels = Tensor::from(label_values, {s_.batch}, device_), loss = make({s_.batch}, stat);
    time("cross_entropy", &KernelTable::cross_entropy,
         CrossEntropy{.logits = logits.view(), .labels = labels.view(), .loss = loss.view(), .dlogits = dlogits.view()},
         12 * double(logits.size()), e * 2 * double(logits.size()));
  }

  void updates() {
    const std::int64_t p = s_.parameters;
    const Tensor w = random({p}, DType::f32), g = random({p}, DType::f32, 1e-3), m = make({p}, DType::f32),
                 v = make({p}, DType::f32);
    const Tensor work = x_ == DType::bf16 ? make({p}, DType::bf16) : Tensor{};
    const Segment whole{0, p, 0, 1.0f, 0.05f};
    StepRecord record;
    record.slot[0].lr = 1e-3;
    record.max_norm = 1.0;
    const Tensor placed = place(record);
    StepRecord* const step = static_cast<StepRecord*>(placed.data());
    time("global_norm", &KernelTable::global_norm, GlobalNorm{.grad = g.view(), .segments = {&whole, 1}, .step = step},
         2 * double(p), 4 * double(p));
    time("adam_update", &KernelTable::adam_update,
         AdamUpdate{.weight = w.view(),
                    .grad = g.view(),
                    .m = m.view(),
                    .v = v.view(),
                    .work = work.view(),
                    .segments = {&whole, 1},
                    .step = step},
         12 * double(p), (28 + (work ? 2 : 0)) * double(p));
    time("sgd_update + momentum", &KernelTable::sgd_update,
         SgdUpdate{.weight = w.view(),
                   .grad = g.view(),
                   .momentum = m.view(),
                   .work = work.view(),
                   .segments = {&whole, 1},
                   .step = step,
                   .mu = 0.9},
         4 * double(p), (20 + (work ? 2 : 0)) * double(p));
    const int window = 8;
    const std::int64_t arrow_p = 4 * s_.dim * s_.dim;
    const Tensor ring = random({window + 1, arrow_p}, DType::f32), gram = make({window + 1, window + 1}, DType::f64);
    const Tensor slice = random({arrow_p}, DType::f32);
    ArrowState state;
    state.filled = window;
    const Tensor placed_state = place(state);
    time("arrow_observe, one block", &KernelTable::arrow_observe,
         ArrowObserve{.grad = slice.view(),
                      .ring = ring.view(),
                      .gram = gram.view(),
                      .state = static_cast<ArrowState*>(placed_state.data())},
         2.0 * (window + 1) * double(arrow_p), 4.0 * (window + 2) * double(arrow_p));
  }

  Device device_;
  DType x_;
  BenchShape s_;
  std::string filter_;
  double seconds_;
  std::int64_t draws_ = 0;
  std::vector<BenchRow> rows_;
};

}  // namespace

std::vector<BenchRow> bench_kernels(Device device, DType activation, const BenchShape& shape, const std::string& filter,
                                    double seconds_each) {
  return Bench(device, activation, shape, filter, seconds_each).run();
}

}  // namespace eg
