// cuda/ladders/ladders.cpp - the rungs with their names, ideas, launches and what they ask of memory.
#include "cuda/ladders/ladders.h"

#include "cuda/kernels/kernels.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"
#include "cuda/table.h"
#include "engine/error.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

void check_input(bool fits, const char* what) {
  check(fits, Kind::shape, [&] {
    return cat("ladder of ", what,
               ": takes bf16, widths that are multiples of 8, a head of 16 to 128, a norm of at most ", kLadderColumns,
               " columns");
  });
}
unsigned blocks_of(std::int64_t n, int size) { return unsigned(ceil_div<std::int64_t>(n, size)); }

// ---- the matrix product ----

LadderProduct product_of(const Matmul& m) {
  check_input(m.a.dtype == DType::bf16 && m.b.dtype == DType::bf16 && m.c.dtype == DType::bf16 && !m.transpose_a &&
                  !m.transpose_b && m.epilogue == Epilogue::none && !m.accumulate && m.a.cols() % 8 == 0 &&
                  m.b.cols() % 8 == 0,
              "matmul");
  return {m.a.as<bf16>(), m.b.as<bf16>(), m.c.as<bf16>(), int(m.c.rows()), int(m.c.cols()), int(m.a.cols())};
}
template <void (*(*kKernel)())(LadderProduct), int kSide, int kThreadsX, int kThreadsY>
void product(const Matmul& m, Stream s) {
  const LadderProduct p = product_of(m);
  launch("ladder matmul", kKernel(), dim3(blocks_of(p.cols, kSide), blocks_of(p.rows, kSide)),
         dim3(kThreadsX, kThreadsY), 0, s, p);
}
/// With tiles of `side` x `side` outputs: each needs 2 side K values of two bytes.
template <int kSide>
double product_asks(const Matmul& m) {
  const double outputs = double(m.c.rows()) * double(m.c.cols());
  return outputs * double(m.a.cols()) * 4.0 / kSide + 2.0 * outputs;
}
/// Tiles of 128 x 256.
double warpgroups_ask(const Matmul& m) { return (product_asks<128>(m) + product_asks<256>(m)) / 2.0; }
void product_by_copies(const Matmul& m, Stream s) {
  product_of(m);
  matmul_by_small_tiles(m, s);
}
void product_by_warpgroups(const Matmul& m, Stream s) {
  product_of(m);
  matmul_by_warpgroups(m, s);
}
void product_trains(const Matmul& m, Stream s) {
  product_of(m);
  matmul(m, s);
}

const Rung<Matmul> kMatmul[] = {
    {"thread", "one thread per output: two numbers fetched for each multiplication",
     product<product_by_thread, 16, 16, 16>, product_asks<1>},
    {"tile", "a block keeps a tile of each operand in shared memory: a number fetched serves 32 threads",
     product<product_by_tile, kLadderTile, kLadderTile, kLadderTile>, product_asks<kLadderTile>},
    {"registers", "a thread owns 4 x 4 outputs: eight numbers from shared memory feed sixteen multiplications",
     product<product_by_register, kLadderWide, 256, 1>, product_asks<kLadderWide>},
    {"tensor cores", "a warp multiplies 16 x 8 x 16 numbers with one instruction, its operands gathered one by one",
     product<product_by_mma, kLadderWide, 128, 1>, product_asks<kLadderWide>},
    {"ldmatrix", "one instruction fetches the operands for the whole warp, from rows padded against bank conflicts",
     product<product_by_ldmatrix, kLadderWide, 128, 1>, product_asks<kLadderWide>},
    {"asynchronous",
     "copies run two steps ahead of the products, past the registers (kernels/matmul.cu, its small tiles)",
     product_by_copies, product_asks<kLadderWide>},
    {"trains", "tiles of 128 x 128: what is fetched serves twice as many products (kernels/matmul.cu)", product_trains,
     product_asks<128>},
    // Last, because not every GPU has it.
    {"warpgroups", "four warps multiply tiles of shared memory while they fetch the next (kernels/matmul_warpgroup.cu)",
     product_by_warpgroups, warpgroups_ask},
};

// ---- attention ----

LadderAttention attention_of(const AttentionFwd& a) {
  const int width = int(a.qkv.dim(4));
  check_input(a.qkv.dtype == DType::bf16 && a.out.dtype == DType::bf16 && width % 16 == 0 && width <= kLadderWidth,
              "attention");
  LadderAttention p = {};
  p.qkv = a.qkv.as<bf16>(), p.out = a.out.as<bf16>(), p.lse = a.lse.as<float>();
  p.images = int(a.qkv.dim(0)), p.tokens = int(a.qkv.dim(1)), p.heads = int(a.qkv.dim(3)), p.width = width;
  p.scale = float(a.scale);
  return p;
}
void attention_in_passes(const AttentionFwd& a, Stream s) {
  LadderAttention p = attention_of(a);
  const std::int64_t rows = std::int64_t(p.images) * p.heads * p.tokens;
  p.scores = static_cast<float*>(scratch(s, std::size_t(rows * p.tokens) * sizeof(float)).data);
  launch("ladder attention scores", attention_scores(), dim3(blocks_of(rows * p.tokens, 256)), dim3(256), 0, s, p);
  launch("ladder attention softmax", attention_softmax(), dim3(blocks_of(rows, 256)), dim3(256), 0, s, p);
  launch("ladder attention mix", attention_mix(), dim3(blocks_of(rows * p.width, 256)), dim3(256), 0, s, p);
}
template <void (*(*kKernel)())(LadderAttention), int kThreads>
void attention_by_64(const AttentionFwd& a, Stream s) {
  const LadderAttention p = attention_of(a);
  launch("ladder attention", kKernel(), dim3(unsigned(p.images * p.heads), blocks_of(p.tokens, 64)), dim3(kThreads), 0,
         s, p);
}
void attention_trains(const AttentionFwd& a, Stream s) {
  attention_of(a);
  attention_fwd(a, s);
}
/// q and the result once, keys and values `times` times.
double attention_asks(const AttentionFwd& a, double times) { return 2.0 * double(a.out.size()) * (2.0 + 2.0 * times); }
double passes_ask(const AttentionFwd& a) {
  const double n = double(a.qkv.dim(1)), heads = double(a.qkv.dim(0) * a.qkv.dim(3)), d = double(a.qkv.dim(4));
  // Two vectors per score; scores written, read twice and written, read; a score and a number of v per term.
  return heads * n * n * (4.0 * d + 4.0 * 5.0) + heads * n * n * d * 6.0 + 2.0 * double(a.out.size());
}
double queries_ask(const AttentionFwd& a) { return attention_asks(a, double(a.qkv.dim(1))); }
double blocks_ask(const AttentionFwd& a) { return attention_asks(a, double(blocks_of(a.qkv.dim(1), 64))); }
double heads_ask(const AttentionFwd& a) { return attention_asks(a, 1.0); }

const Rung<AttentionFwd> kAttention[] = {
    {"passes", "scores, softmax, mixture: three passes, with all N^2 scores in memory between them",
     attention_in_passes, passes_ask},
    {"online", "a thread per query, one pass over the keys: the softmax is corrected as it goes, no score is stored",
     attention_by_64<attention_online, 64>, queries_ask},
    {"shared", "64 queries share the keys and values that their block holds in shared memory",
     attention_by_64<attention_shared, 64>, blocks_ask},
    {"tensor cores",
     "a warp multiplies 16 queries with 8 keys at once; weights stay in registers for the second product",
     attention_by_64<attention_tensor_cores, 128>, blocks_ask},
    {"trains",
     "a head's keys and values copied once, ahead of the products, and handed out by ldmatrix "
     "(kernels/attention_fwd.cu)",
     attention_trains, heads_ask},
};

// ---- layer norm ----

LadderNorm norm_of(const LayerNormFwd& a) {
  check_input(a.x.dtype == DType::bf16 && a.y.dtype == DType::bf16 && !a.residual && a.x.cols() % 8 == 0 &&
                  a.x.cols() <= kLadderColumns,
              "layer_norm");
  return {a.x.as<bf16>(),     a.gamma.as<bf16>(), a.beta.as<bf16>(), a.y.as<bf16>(), a.mean.as<float>(),
          a.rstd.as<float>(), int(a.x.rows()),    int(a.x.cols()),   float(a.eps)};
}
template <void (*(*kKernel)())(LadderNorm), int kRows>
void norm(const LayerNormFwd& a, Stream s) {
  const LadderNorm p = norm_of(a);
  launch("ladder layer_norm", kKernel(), dim3(blocks_of(p.rows, kRows)), dim3(128), 0, s, p);
}
void norm_trains(const LayerNormFwd& a, Stream s) {
  norm_of(a);
  layer_norm_fwd(a, s);
}
/// A row is read kReads times, in sectors of which kShare bytes in 32 are wanted, and written once.
template <int kReads, int kWanted>
double norm_asks(const LayerNormFwd& a) {
  return 2.0 * double(a.x.size()) * (kReads + 1.0) * 32.0 / kWanted;
}

const Rung<LayerNormFwd> kLayerNorm[] = {
    {"thread", "one thread per row: the threads of a warp read numbers that lie a row apart", norm<norm_by_thread, 128>,
     norm_asks<3, 2>},
    {"warp", "one warp per row: neighbours read neighbours, shuffles add up the lanes", norm<norm_by_warp, 4>,
     norm_asks<3, 32>},
    {"registers", "the row waits in registers between mean, variance and result: it is read once",
     norm<norm_in_registers, 4>, norm_asks<1, 32>},
    {"trains", "eight numbers per request (kernels/layer_norm.cu, which also adds the residual on the way)",
     norm_trains, norm_asks<1, 32>},
};

// ---- ceilings ----

double arithmetic(const TensorView& out, DType dtype, int rounds, Stream s) {
  const bool narrow = dtype == DType::bf16;
  check(out.dtype == DType::f32 && out.size() > 0 && out.size() % kCeilingThreads == 0 && rounds > 0 &&
            (narrow || dtype == DType::f32),
        Kind::shape, [&] {
          return cat("ceiling: takes bf16 or f32, at least one round, and f32 results of which there is a multiple of ",
                     kCeilingThreads, "; got ", dtype, ", ", rounds, " rounds, ", out);
        });
  const std::int64_t blocks = out.size() / kCeilingThreads;
  launch("ceiling", narrow ? ceiling_tensor_cores() : ceiling_fp32(), dim3(unsigned(blocks)), dim3(kCeilingThreads), 0,
         s, {out.as<float>(), rounds, 0.5f});
  const double warps = double(blocks) * (kCeilingThreads / kWarp);
  return warps * rounds * (narrow ? kCeilingProducts * 2.0 * 16 * 8 * 16 : kWarp * kCeilingChains * 2.0);
}

}  // namespace

const Ladders& device_ladders() {
  static const Ladders all{std::span(kMatmul).first(std::size(kMatmul) - (warpgroup_products() ? 0 : 1)), kAttention,
                           kLayerNorm, arithmetic};
  return all;
}

}  // namespace eg::EVERGRAD_BACKEND
