// apps/bench/ladder_bench.cpp - see ladder_bench.h.
#include "apps/bench/ladder_bench.h"

#include <algorithm>
#include <cmath>

#include "apps/run/table.h"
#include "engine/ladder.h"
#include "engine/rng.h"

namespace eg {
namespace {

Tensor random(const Shape& shape, Device device, std::uint32_t draw) {
  const Key k = key(7, "bench", "ladder", draw);
  std::vector<float> values(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = float(bf16(float((k.uniform(i) * 2 - 1) * 1.7)));
  return Tensor::from(values, shape, device == kReference ? DType::f64 : DType::bf16, device);
}
Tensor zeros(const Shape& shape, Device device, DType dtype) {
  return Tensor::zeros(shape, device == kReference ? DType::f64 : dtype, device);
}

/// One call with the tensors that it reads and writes.
template <class Args>
struct Prepared {
  Args args;
  std::vector<Tensor> tensors;  // the result first
  double flops = 0.0, bytes = 0.0;
};

Prepared<Matmul> matmul_of(const BenchShape& s, Device d) {
  const std::int64_t rows = s.batch * s.tokens;
  const Tensor c = zeros({rows, s.hidden}, d, DType::bf16), a = random({rows, s.dim}, d, 1),
               b = random({s.dim, s.hidden}, d, 2);
  Matmul m;
  m.a = a.view(), m.b = b.view(), m.c = c.view();
  return {m, {c, a, b}, 2.0 * double(c.size()) * double(s.dim), 2.0 * double(a.size() + b.size() + c.size())};
}
Prepared<AttentionFwd> attention_of(const BenchShape& s, Device d) {
  const std::int64_t width = s.dim / s.heads;
  const Tensor out = zeros({s.batch, s.tokens, s.heads, width}, d, DType::bf16);
  const Tensor qkv = random({s.batch, s.tokens, 3, s.heads, width}, d, 3);
  const Tensor lse = zeros({s.batch, s.heads, s.tokens}, d, DType::f32);
  AttentionFwd a;
  a.qkv = qkv.view(), a.out = out.view(), a.lse = lse.view(), a.scale = 1.0 / std::sqrt(double(width));
  return {a, {out, qkv, lse}, 4.0 * double(out.size()) * double(s.tokens), 2.0 * double(qkv.size() + out.size())};
}
Prepared<LayerNormFwd> layer_norm_of(const BenchShape& s, Device d) {
  const Shape shape{s.batch * s.tokens, s.dim}, rows{s.batch * s.tokens};
  const Tensor y = zeros(shape, d, DType::bf16), x = random(shape, d, 4);
  const Tensor gamma = random({s.dim}, d, 5), beta = random({s.dim}, d, 6);
  const Tensor mean = zeros(rows, d, DType::f32), rstd = zeros(rows, d, DType::f32);
  LayerNormFwd a;
  a.x = x.view(), a.gamma = gamma.view(), a.beta = beta.view(), a.y = y.view();
  a.mean = mean.view(), a.rstd = rstd.view();
  return {a, {y, x, gamma, beta, mean, rstd}, 9.0 * double(x.size()), 4.0 * double(x.size())};
}

/// Largest difference between the results, as a share of the largest result.
double difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_host(), y = b.to_host();
  double largest = 0.0, worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::abs(y[i]));
    const double d = std::abs(x[i] - y[i]);
    if (!(d <= worst)) worst = d;  // NaN stays
  }
  return worst / largest;
}

/// Milliseconds that nothing can beat: the slower of arithmetic and memory, of memory alone where that is all we know.
double bound_of(double flops, double bytes, const Ceilings& top) {
  const double arithmetic = top.bf16_gflops > 0.0 ? flops / top.bf16_gflops : 0.0;
  return std::max(arithmetic, bytes / top.copy_gb_per_s) * 1e-6;
}

template <class Args, class Prepare>
std::string climb(Device device, std::span<const Rung<Args>> rungs, void (*KernelTable::*entry)(const Args&, Stream),
                  const Prepare& prepare, const BenchShape& shape, const Ceilings& top, double seconds) {
  const bool timed = device.type == DeviceType::cuda;
  BenchShape little = shape;
  little.batch = 1;
  Prepared<Args> exact = prepare(little, kReference), piece = prepare(little, device);
  call(kReference, entry, "ladder", exact.args);
  Prepared<Args> full = timed ? prepare(shape, device) : piece;

  TextTable table(timed ? std::vector<std::string>{"rung", "asks for GB", "ms", "TFLOP/s", "of bound", "error"}
                        : std::vector<std::string>{"rung", "asks for MB", "FLOP per byte asked", "error"});
  std::string ideas;
  const double bound_ms = timed ? bound_of(full.flops, full.bytes, top) : 0.0;
  for (const Rung<Args>& rung : rungs) {
    piece.tensors[0].set_zero();
    rung.run(piece.args, {});
    runtime(device).synchronize({});
    const double error = difference(piece.tensors[0], exact.tensors[0]);
    // bf16 keeps 8 bits: a right result is off by about 0.004 of itself. Bounds that are derived stand in the tests.
    check(error < 0.05, Kind::internal,
          [&] { return cat("rung ", rung.name, " is wrong: its largest error is ", error); });
    const double asked = rung.asked(full.args);
    ideas += cat("  ", rung.name, ": ", rung.idea, "\n");
    if (!timed) {
      table.add_row({rung.name, fixed(asked * 1e-6, 2), fixed(full.flops / asked, 1), fixed(error, 4)});
      continue;
    }
    constexpr int kLaunches = 5;
    const double ms = median_ms(
                          [&] {
                            for (int i = 0; i < kLaunches; ++i) rung.run(full.args, {});
                            runtime(device).synchronize({});
                          },
                          seconds) /
                      kLaunches;
    table.add_row({rung.name, fixed(asked * 1e-9, 2), fixed(ms, 3), fixed(full.flops / ms * 1e-9, 1),
                   fixed(100.0 * bound_ms / ms, 1) + "%", fixed(error, 4)});
  }
  std::string text =
      cat(ideas, '\n', table.text(), "\n'asks for': what the threads request of memory, caches left out; the ",
          "operation itself needs ", fixed(full.bytes * 1e-6, 2), " MB and ", fixed(full.flops * 1e-9, 3),
          " GFLOP. 'error' is against the double-precision reference, as a share of the largest result.\n");
  if (timed)
    text += cat("'of bound': attainable time, from the ceilings above",
                top.bf16_gflops > 0.0 ? "" : " (of memory alone: this device's arithmetic ceiling is not measured yet)",
                ", over the measured one.\n");
  else
    text +=
        "One image, and no times: the emulated device executes a GPU's kernels on this processor, which says nothing "
        "about their speed.\n";
  return text;
}

}  // namespace

void check_ladder(Device device, const std::string& name, const BenchShape& shape) {
  check(ladders(device) != nullptr, Kind::usage, [&] {
    return cat("--ladder ", name, ": the ladders are CUDA kernels, and ", device,
               " has none; use --device cuda:0, or --device emulated to see them counted and checked");
  });
  check(shape.dim % 8 == 0 && shape.hidden % 8 == 0 && shape.dim / shape.heads % 16 == 0 && shape.dim <= 1024 &&
            shape.dim / shape.heads <= 128,
        Kind::usage, [&] {
          return cat(
              "--ladder ", name,
              ": takes widths up to 1024 that are multiples of 8, and heads of 16, 32, ... 128; this model has width ",
              shape.dim, " and heads of ", shape.dim / shape.heads);
        });
}

std::string bench_ladder(Device device, const std::string& name, const BenchShape& shape, const Ceilings& ceilings,
                         double seconds) {
  check_ladder(device, name, shape);
  const Ladders* const all = ladders(device);
  if (name == "matmul")
    return climb<Matmul>(device, all->matmul, &KernelTable::matmul, matmul_of, shape, ceilings, seconds);
  if (name == "attention")
    return climb<AttentionFwd>(device, all->attention, &KernelTable::attention_fwd, attention_of, shape, ceilings,
                               seconds);
  return climb<LayerNormFwd>(device, all->layer_norm, &KernelTable::layer_norm_fwd, layer_norm_of, shape, ceilings,
                             seconds);
}

}  // namespace eg
