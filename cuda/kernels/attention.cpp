// cuda/kernels/attention.cpp - host entries of attention: which kernel, and how many tokens shared memory holds.
#include "cuda/kernels/attention.h"

#include "cuda/choose.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/library.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"
#include "engine/error.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr std::size_t kMostShared = 100 * 1024;  // two blocks a multiprocessor; beyond, tokens pass through in chunks

AttentionParams params_of(const TensorView& qkv, const TensorView& lse, double scale) {
  check(qkv.shape.rank() == 5 && qkv.dim(2) == 3, Kind::shape,
        [&] { return cat("attention: qkv must be [batch, tokens, 3, heads, width], got ", qkv); });
  AttentionParams p;
  p.qkv = operand(qkv), p.out = p.dout = p.dqkv = operand({});
  p.lse = lse.as<float>(), p.delta = p.entropy = p.map = nullptr;
  p.images = qkv.dim(0), p.tokens = int(qkv.dim(1)), p.heads = int(qkv.dim(3)), p.width = int(qkv.dim(4)),
  p.scale = float(scale), p.scale2 = float(scale * 1.4426950408889634);
  p.chunk = 0, p.accumulate = false;
  return p;
}

bool tensor_cores_can(const AttentionParams& p, std::initializer_list<const TensorView*> views) {
  for (const TensorView* v : views)
    if (v->dtype != DType::bf16 || reinterpret_cast<std::uintptr_t>(v->data) % 16) return false;
  return attention_fwd_kernel(p.width) != nullptr;
}

/// All tokens, rounded up to whole tiles, if they fit, else what fits of 64, the most that a warp takes at once: a chunk
/// that another follows has no tail.
int chunk_of(const AttentionParams& p) {
  const int all = ceil_div(p.tokens, kTileRows) * kTileRows;
  const int fits = int(min_of(kMostShared, most_shared_bytes()) / attention_shared_bytes(1, p.width));
  return all <= fits ? all : fits / 64 * 64;
}

/// As few rounds over the tiles as `most_warps` can do, and no more warps than these need: the 13 tiles of 197 tokens take
/// seven warps two rounds.
void launch_tiles(const char* name, AttentionKernel kernel, int most_warps, const AttentionParams& p, Stream s) {
  const int tiles = max_of(ceil_div(p.tokens, kTileRows), 1), rounds = ceil_div(tiles, most_warps);
  // While everything fits, one block reads a head once; a long sequence is divided.
  const unsigned down = p.chunk >= p.tokens ? 1u : unsigned(rounds);
  launch(name, kernel, dim3(unsigned(p.images * p.heads), p.tokens > 0 ? down : 0u),
         dim3(unsigned(ceil_div(tiles, rounds)) * kWarp), attention_shared_bytes(p.chunk, p.width), s, p);
}

void launch_rows(const char* name, AttentionKernel kernel, const AttentionParams& p, Stream s) {
  check(p.width <= kMostPlainWidth, Kind::shape, [&] {
    return cat("attention: a head of width ", p.width, " is beyond the limit of ", kMostPlainWidth, "; use more heads");
  });
  const std::int64_t rows = p.images * p.heads * p.tokens;
  launch(name, kernel, dim3(unsigned((rows + kAttentionWarps - 1) / kAttentionWarps)), dim3(kAttentionWarps * kWarp), 0,
         s, p);
}

/// Whether the backward pass can go through one kernel. This depends on the card: a block of an A100 gets 163 KiB of shared
/// memory, one of a consumer card 99, one of an H100 227.
bool fits_short(const AttentionParams& p) {
  const ShortShape shape = attention_bwd_short_shape(p.tokens, p.width);
  return p.images < 65536 && shape.groups > 0 && attention_bwd_short_bytes(p.tokens, p.width) <= most_shared_bytes();
}
void launch_short(const AttentionParams& p, Stream s) {
  const ShortShape shape = attention_bwd_short_shape(p.tokens, p.width);
  launch("attention_bwd short", attention_bwd_short_kernel(p.width, shape.groups),
         dim3(unsigned(p.heads), unsigned(p.images)), dim3(unsigned(shape.warps) * kWarp),
         attention_bwd_short_bytes(p.tokens, p.width), s, p);
}

/// What the ways of a call and their speed depend on.
std::string call_of(const char* entry, const AttentionParams& p, DType type, bool tensor_cores, bool wide) {
  return cat(entry, ' ', p.images, "x", p.tokens, "x", p.heads, "x", p.width, " ", type, tensor_cores ? "" : " plain",
             wide ? "" : " unaligned");
}

void forward_by_hand(const AttentionFwd& a, Stream s) {
  AttentionParams p = params_of(a.qkv, a.lse, a.scale);
  p.out = operand(a.out), p.entropy = a.row_entropy.as<float>(), p.map = a.map.as<float>();
  if (tensor_cores_can(p, {&a.qkv, &a.out})) {
    p.chunk = chunk_of(p);
    launch_tiles("attention_fwd", attention_fwd_kernel(p.width), attention_most_warps(p.width), p, s);
  } else {
    launch_rows("attention_fwd", attention_fwd_plain_kernel(), p, s);
  }
  if (p.entropy || p.map) launch_rows("attention_fwd diagnosis", attention_probe_kernel(), p, s);
}

AttentionParams params_of(const AttentionBwd& a) {
  AttentionParams p = params_of(a.qkv, a.lse, a.scale);
  p.out = operand(a.out), p.dout = operand(a.dout), p.dqkv = operand(a.dqkv), p.accumulate = a.accumulate;
  return p;
}

void backward_by_two(const AttentionBwd& a, bool tensor_cores, Stream s) {
  AttentionParams p = params_of(a);
  p.delta = static_cast<float*>(
      scratch(s, std::size_t(max_of<std::int64_t>(p.images * p.heads * p.tokens, 1)) * sizeof(float)).data);
  if (tensor_cores) {
    p.chunk = chunk_of(p);
    launch_tiles("attention_bwd queries", attention_bwd_queries_kernel(p.width), kAttentionWarps, p, s);
    launch_tiles("attention_bwd keys", attention_bwd_keys_kernel(p.width), kAttentionWarps, p, s);
  } else {
    launch_rows("attention_bwd queries", attention_bwd_queries_plain_kernel(), p, s);
    launch_rows("attention_bwd keys", attention_bwd_keys_plain_kernel(), p, s);
  }
}

}  // namespace

void attention_fwd(const AttentionFwd& a, Stream s) {
  KernelChoices& choices = kernel_choices(current_device());
  if (!choices.active() || a.out.size() == 0 || a.row_entropy || a.map) return forward_by_hand(a, s);
  const AttentionParams p = params_of(a.qkv, a.lse, a.scale);
  const bool tensor_cores = tensor_cores_can(p, {&a.qkv, &a.out});
  std::vector<Way<AttentionFwd>> ways{{{tensor_cores ? "tensor-cores" : "plain"}, forward_by_hand}};
  const std::string call =
      call_of("attention_fwd", p, a.out.dtype, tensor_cores, wide_access({&a.qkv, &a.out, &a.lse}));
  add_library_ways(call, a, &ways);
  run_chosen(choices, call, ways, a, {&AttentionFwd::out, &AttentionFwd::lse}, s);
}

void attention_bwd(const AttentionBwd& a, Stream s) {
  const AttentionParams p = params_of(a);
  const bool tensor_cores = tensor_cores_can(p, {&a.qkv, &a.out, &a.dout, &a.dqkv});
  const bool in_one = tensor_cores && fits_short(p);
  const auto by_one = [](const AttentionBwd& b, Stream t) { launch_short(params_of(b), t); };
  const auto by_two = [tensor_cores](const AttentionBwd& b, Stream t) { backward_by_two(b, tensor_cores, t); };
  KernelChoices& choices = kernel_choices(current_device());
  if (!choices.active() || a.dqkv.size() == 0) return in_one && a.dqkv.size() > 0 ? by_one(a, s) : by_two(a, s);
  std::vector<Way<AttentionBwd>> ways;
  if (in_one) ways.push_back({{"one-kernel"}, by_one});
  ways.push_back({{tensor_cores ? "two-kernels" : "plain"}, by_two});
  const std::string call =
      call_of("attention_bwd", p, a.dqkv.dtype, tensor_cores, wide_access({&a.qkv, &a.out, &a.lse, &a.dout, &a.dqkv})) +
      (a.accumulate ? " added" : "");
  add_library_ways(call, a, &ways);
  run_chosen(choices, call, ways, a, {&AttentionBwd::dqkv}, s);
}

}  // namespace eg::EVERGRAD_BACKEND
