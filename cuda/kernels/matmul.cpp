// cuda/kernels/matmul.cpp - host entry of the matrix products: which kernel, which tile, how many splits.
//
// The rule depends on shapes, types and alignment alone, never on the card, so that a run's bits repeat on other cards of the
// same kind of arithmetic. `--kernels library|auto` may take another way; then the choices are part of the run.
#include "cuda/kernels/matmul.h"

#include "cuda/choose.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/library.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"
#include "engine/error.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

// Of an H100; only used to decide on tiles and splits. Bytes a microsecond of its memory.
constexpr std::int64_t kProcessors = 132, kMostSplits = 64, kLeastDepth = 512;
constexpr double kBandwidth = 3e6;

MatmulParams params_of(const Matmul& m) {
  MatmulParams p;
  p.a = operand(m.a), p.b = operand(m.b), p.c = operand(m.c), p.bias = operand(m.bias), p.aux = operand(m.aux);
  p.split_sums = p.column_sums = p.row_sums = nullptr;
  p.rows = m.c.rows(), p.cols = m.c.cols(), p.depth = m.transpose_a ? m.a.rows() : m.a.cols();
  p.transpose_a = m.transpose_a, p.transpose_b = m.transpose_b, p.accumulate = m.accumulate,
  p.tanh_form = m.gelu == GeluKind::tanh;
  p.wide = p.cols % kPack == 0 && wide_access({&m.c, &m.aux, &m.bias});
  switch (m.epilogue) {
    case Epilogue::none:
    case Epilogue::bias_grad_a: p.end = MatmulEnd::none; break;
    case Epilogue::bias: p.end = MatmulEnd::bias; break;
    case Epilogue::bias_gelu: p.end = MatmulEnd::bias_gelu; break;
    case Epilogue::dgelu: p.end = MatmulEnd::dgelu; break;
  }
  return p;
}

/// Rows of both operands begin at multiples of 16 bytes.
bool tensor_cores_can(const Matmul& m) {
  const auto fits = [](const TensorView& v) {
    return v.dtype == DType::bf16 && v.cols() % 8 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
  };
  return fits(m.a) && fits(m.b);
}

void check_shapes(const Matmul& m) {
  const std::int64_t rows = m.transpose_a ? m.a.cols() : m.a.rows(), depth = m.transpose_a ? m.a.rows() : m.a.cols();
  const std::int64_t depth_b = m.transpose_b ? m.b.cols() : m.b.rows(), cols = m.transpose_b ? m.b.rows() : m.b.cols();
  check(depth == depth_b && m.c.rows() == rows && m.c.cols() == cols, Kind::shape, [&] {
    return cat("matmul: ", m.a, m.transpose_a ? " transposed" : "", " times ", m.b, m.transpose_b ? " transposed" : "",
               " into ", m.c, " does not fit");
  });
}

std::int64_t tiles_of(const MatmulParams& p, const MatmulTile& t) {
  return ((p.rows + t.rows - 1) / t.rows) * ((p.cols + t.cols - 1) / t.cols);
}

using KernelOf = MatmulKernel (*)(bool transpose_a, bool transpose_b);
/// One of our kernels.
struct HandKernel {
  const char* name;
  const MatmulTile& tile;
  KernelOf kernel;
};
const HandKernel kLarge{"tile-128", kLargeTile,
                        [](bool ta, bool tb) { return matmul_tensor_core_kernel(true, ta, tb); }};
const HandKernel kSmall{"tile-64", kSmallTile,
                        [](bool ta, bool tb) { return matmul_tensor_core_kernel(false, ta, tb); }};
const HandKernel kPlain{"plain", kPlainTile, [](bool, bool) { return matmul_plain_kernel(); }};
const HandKernel kWarpgroupWide{"warpgroup-256", kWarpgroupWideTile,
                                [](bool ta, bool tb) { return matmul_warpgroup_kernel(true, ta, tb); }};
const HandKernel kWarpgroup{"warpgroup-128", kWarpgroupTile,
                            [](bool ta, bool tb) { return matmul_warpgroup_kernel(false, ta, tb); }};

/// A bound on the time, for comparing: rounds of blocks over the multiprocessors, and parts that are written and read again.
double microseconds(const MatmulParams& p, const MatmulTile& tile, std::int64_t splits) {
  const double rounds = double(ceil_div<std::int64_t>(tiles_of(p, tile) * splits, kProcessors));
  const double block =
      2.0 * double(tile.rows * tile.cols) * double(ceil_div<std::int64_t>(p.depth, splits)) / tile.rate;
  return rounds * block + (splits > 1 ? 8.0 * double(splits * p.rows * p.cols) / kBandwidth : 0.0);
}

/// Into how many parts the depth is cut: as many as fill whole rounds best. Only sums without an epilogue can be.
std::int64_t splits_of(const MatmulParams& p, const MatmulTile& tile) {
  std::int64_t best = 1;
  if (p.end != MatmulEnd::none || tiles_of(p, tile) == 0) return best;
  for (std::int64_t splits = 2; splits <= min_of<std::int64_t>(p.depth / kLeastDepth, kMostSplits); ++splits)
    if (microseconds(p, tile, splits) < microseconds(p, tile, best)) best = splits;
  return best;
}

/// The rule without measurements: large tiles while they give half of the multiprocessors something to do, or where cut in
/// depth they are quicker. Warpgroups never: their bits would differ from other cards', and no measurement asks for it yet.
const HandKernel& rule(const Matmul& m, const MatmulParams& p) {
  if (!tensor_cores_can(m)) return kPlain;
  if (tiles_of(p, kLargeTile) * 2 > kProcessors) return kLarge;
  const std::int64_t large = splits_of(p, kLargeTile), small = splits_of(p, kSmallTile);
  return large > 1 && microseconds(p, kLargeTile, large) < microseconds(p, kSmallTile, small) ? kLarge : kSmall;
}

void by_hand(const Matmul& m, const HandKernel& which, Stream s) {
  MatmulParams p = params_of(m);
  const bool tensor_cores = &which != &kPlain;
  const MatmulTile& tile = which.tile;
  const MatmulKernel kernel = which.kernel(m.transpose_a, m.transpose_b);
  const std::int64_t blocks = tiles_of(p, tile);
  const std::int64_t splits = splits_of(p, tile);
  const std::int64_t row_tiles = ceil_div<std::int64_t>(p.rows, tile.rows),
                     column_tiles = ceil_div<std::int64_t>(p.cols, tile.cols);
  const bool of_result = m.epilogue == Epilogue::dgelu && m.bias_grad;
  const bool of_a = m.epilogue == Epilogue::bias_grad_a && m.bias_grad;
  const std::int64_t parts = !tensor_cores && of_a ? 0 : of_a ? splits * column_tiles : of_result ? row_tiles : 0;
  const std::int64_t in_parts = splits > 1 ? splits * p.rows * p.cols : 0, in_sums = parts * (of_a ? p.rows : p.cols);
  float* const memory = in_parts + in_sums > 0
                            ? static_cast<float*>(scratch(s, std::size_t(in_parts + in_sums) * sizeof(float)).data)
                            : nullptr;
  float* const sums = memory + in_parts;
  if (splits > 1) p.split_sums = memory;
  if (parts > 0) (of_a ? p.row_sums : p.column_sums) = sums;
  launch("matmul", kernel, dim3(unsigned(blocks), 1, unsigned(splits)), dim3(unsigned(tile.threads)), tile.shared_bytes,
         s, p);
  if (splits > 1) finish_columns(memory, splits, p.rows * p.cols, p.c, p.accumulate, s);
  if (of_a && blocks > 0 && tensor_cores) {
    finish_columns(sums, parts, p.rows, operand(m.bias_grad), m.accumulate_bias_grad, s);
  } else if (of_a) {
    ColumnSumParams c;
    c.x = p.a, c.out = operand(m.bias_grad), c.partials = nullptr;
    c.rows = m.a.rows(), c.columns = c.row_stride = m.a.cols(), c.offset = 0, c.accumulate = m.accumulate_bias_grad;
    sum_columns("matmul bias gradient", c, s);
  } else if (of_result) {
    finish_columns(sums, row_tiles, p.cols, operand(m.bias_grad), m.accumulate_bias_grad, s);
  }
}

/// All that the ways and their speed depend on: shapes, forms, types, what follows, alignment.
std::string call_of(const Matmul& m, const MatmulParams& p, const HandKernel& ours) {
  constexpr const char* ends[] = {"", " bias", " bias-gelu", " dgelu", " bias-grad-a"};
  static_assert(int(Epilogue::bias_grad_a) == 4);
  const bool gelu = m.epilogue == Epilogue::bias_gelu || m.epilogue == Epilogue::dgelu;
  std::string text =
      cat("matmul ", p.rows, "x", p.cols, "x", p.depth, m.transpose_a ? " t" : " n", m.transpose_b ? "t " : "n ",
          m.a.dtype, "*", m.b.dtype, "->", m.c.dtype, m.accumulate ? " added" : "", ends[int(m.epilogue)]);
  if (gelu) text += m.gelu == GeluKind::tanh ? "-tanh" : "-erf";
  if (m.bias_grad) text += cat(" db:", m.bias_grad.dtype, m.accumulate_bias_grad ? "+" : "");
  if (&ours == &kPlain) text += " plain";
  return text + (wide_access({&m.a, &m.b, &m.c, &m.bias, &m.aux, &m.bias_grad}) ? "" : " unaligned");
}

/// aux is written by bias-gelu and read by dgelu.
Trial<Matmul>::Outputs outputs_of(const Matmul& m) {
  Trial<Matmul>::Outputs outputs{&Matmul::c, &Matmul::bias_grad};
  if (m.epilogue == Epilogue::bias_gelu) outputs.push_back(&Matmul::aux);
  return outputs;
}

std::vector<Way<Matmul>> ways_of(const HandKernel& ours) {
  const auto by = [](const HandKernel& k) {
    return Way<Matmul>{{k.name}, [&k](const Matmul& a, Stream s) { by_hand(a, k, s); }};
  };
  std::vector<Way<Matmul>> ways{by(ours)};
  if (&ours == &kPlain) return ways;
  ways.push_back(by(&ours == &kLarge ? kSmall : kLarge));
  if (warpgroup_products()) ways.push_back(by(kWarpgroupWide)), ways.push_back(by(kWarpgroup));
  return ways;
}

}  // namespace

void matmul_by_small_tiles(const Matmul& m, Stream s) {
  check_shapes(m);
  check(tensor_cores_can(m), Kind::usage, [&] {
    return cat("matmul_by_small_tiles: takes bf16 with rows of whole 16-byte pieces; got ", m.a, " and ", m.b);
  });
  by_hand(m, kSmall, s);
}

void matmul_by_warpgroups(const Matmul& m, Stream s) {
  check_shapes(m);
  check(warpgroup_products() && tensor_cores_can(m), Kind::usage, [&] {
    return cat(
        "matmul_by_warpgroups: takes bf16 with rows of whole 16-byte pieces, on a GPU of compute capability 9.0 that "
        "this "
        "build has code for; got ",
        m.a, " and ", m.b);
  });
  by_hand(m, kWarpgroupWide, s);
}

void matmul(const Matmul& m, Stream s) {
  check_shapes(m);
  const MatmulParams p = params_of(m);
  const HandKernel& ours = rule(m, p);
  KernelChoices& choices = kernel_choices(current_device());
  if (!choices.active() || m.c.size() == 0) return by_hand(m, ours, s);
  const std::string call = call_of(m, p, ours);
  std::vector<Way<Matmul>> ways = ways_of(ours);
  add_library_ways(call, m, &ways);
  run_chosen(choices, call, ways, m, outputs_of(m), s);
}

}  // namespace eg::EVERGRAD_BACKEND
