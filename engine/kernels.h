// engine/kernels.h - the one narrow contract between autograd and a device: plain argument structs and a table of
// function pointers. A new device is one new KernelTable and one DeviceRuntime.
//
// Shape letters: B batch, N tokens, C channels, H heads, D head width, P patch, K classes, R rows (all leading axes).
// Dtypes: "x" below means the activation type of the device, f32 or bf16 (f64 on `reference`); "stat" is f64 on
// `reference` and f32 elsewhere; weights and biases have the activation type; gradients of parameters are f32 (or the
// activation type), which the kernels accept per argument. A view whose data is null is an absent option.
// `accumulate` adds to what the destination holds; otherwise it is overwritten and need not be initialised.
// Kernels may assume what the callers in autograd/ops checked: shapes fit, pointers are valid on the device.
#pragma once
#include <cstdint>

#include "engine/device.h"
#include "engine/kernels_optim.h"
#include "engine/kernels_prompt.h"
#include "engine/rng.h"
#include "engine/tensor.h"

namespace eg {

// ---- matrix products ------------------------------------------------------------------------------------------------

enum class GeluKind : std::uint8_t {
  erf,  // x Phi(x), timm's default (Hendrycks & Gimpel 2016, arXiv:1606.08415)
  tanh  // 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
};

/// What happens to a product before it is written.
enum class Epilogue : std::uint8_t {
  none,
  bias,        // c += bias
  bias_gelu,   // aux = a b + bias (stored for backward), c = gelu(aux)
  dgelu,       // c = (a b) * gelu'(aux); with bias_grad: column sums of c, the bias gradient of the first MLP layer
  bias_grad_a  // with transpose_a, a = dY: bias_grad (+)= column sums of a, next to the weight gradient c = dY^T X
};

/// c[M,N] (+)= op(a)[M,K] op(b)[K,N]; op transposes the stored matrix. Leading axes of a and c are flattened into rows.
/// a, b: x; c: x or f32 (f64). Sums in fp32 (fp64 on reference).
struct Matmul {
  TensorView a, b, c;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  Epilogue epilogue = Epilogue::none;
  GeluKind gelu = GeluKind::erf;
  TensorView bias;       // [N] x
  TensorView aux;        // [M,N] x
  TensorView bias_grad;  // [N] (dgelu) or [M] (bias_grad_a); f32, f64 or x
  bool accumulate_bias_grad = false;
};

// ---- attention ------------------------------------------------------------------------------------------------------

/// softmax(scale q k^T) v for packed qkv [B,N,3,H,D] (timm's layout of one fused projection); non-causal.
/// Dao et al. 2022 (arXiv:2205.14135): lse[B,H,N] = log sum exp of the scaled logits is all that backward needs.
struct AttentionFwd {
  TensorView qkv, out /*[B,N,H,D]*/, lse /*stat [B,H,N]*/;
  double scale = 1.0;
  TensorView row_entropy;  // stat [B,H,N], optional: -sum a ln a
  TensorView map;          // stat [B,H,N,N], optional: the probabilities
};
/// dqkv (+)= the gradient, from lse and out instead of the probabilities.
struct AttentionBwd {
  TensorView qkv, out, lse, dout, dqkv;
  double scale = 1.0;
  bool accumulate = false;
};

/// Layer norm over the head width of q and k inside packed qkv (Dehghani et al. 2023, arXiv:2302.05442); v is copied.
struct QkNormFwd {
  TensorView qkv, gamma_q, beta_q, gamma_k, beta_k /*[D] x*/, out;
  TensorView mean, rstd;  // stat [B,N,2,H]
  double eps = 1e-6;
};
/// Gradients of QkNormFwd; those of v pass through.
struct QkNormBwd {
  TensorView qkv, gamma_q, gamma_k, mean, rstd, dout, dqkv;
  TensorView dgamma_q, dbeta_q, dgamma_k, dbeta_k;  // [D], each may be absent
  bool accumulate = false, accumulate_params = false;
};

// ---- normalisation, activation, branches ----------------------------------------------------------------------------

/// Layer norm over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450), optionally fused with the residual sum
/// that comes before it: sum = x + residual, y = (sum - mean) rstd gamma + beta.
struct LayerNormFwd {
  TensorView x, residual, sum;  // [R,C]; residual and sum both present or both absent
  TensorView gamma, beta, y;    // [C], [C], [R,C]
  TensorView mean, rstd;        // stat [R]
  double eps = 1e-6;
};
/// dx (+)= layer-norm gradient of dy (+ dsum, the gradient that reaches the residual sum by its other path).
struct LayerNormBwd {
  TensorView dy, dsum, x /*the normalised input*/, gamma, mean, rstd, dx;
  TensorView dgamma, dbeta;  // [C], each may be absent
  bool accumulate = false, accumulate_params = false;
};

/// y = gelu(x).
struct GeluFwd {
  TensorView x, y;
  GeluKind kind = GeluKind::erf;
};
/// dx (+)= dy gelu'(x).
struct GeluBwd {
  TensorView x, dy, dx;
  GeluKind kind = GeluKind::erf;
  bool accumulate = false;
};

/// Concatenated ReLU (Shang et al. 2016, arXiv:1603.05201): y[r] = {max(x[r], 0), max(-x[r], 0)}, so that one of each
/// pair passes the gradient on. NaN stays NaN.
struct CreluFwd {
  TensorView x /*[R,F]*/, y /*[R,2F]*/;
};
/// dx (+)= dy[r,f] where x > 0, -dy[r,F+f] where x < 0, nothing at 0.
struct CreluBwd {
  TensorView x, dy, dx;
  bool accumulate = false;
};

/// y[b,n,c] = x[b,n,c] * scale[c] * mask[b]: layer scale (Touvron et al. 2021, arXiv:2103.17239) and stochastic depth
/// (Huang et al. 2016, arXiv:1603.09382) of one residual branch. Either may be absent.
struct BranchScaleFwd {
  TensorView x, scale /*[C] x*/, mask /*stat [B]*/, y;
};
/// dx (+)= dy scale mask; dscale [C] (+)= sum over samples and tokens of dy x mask.
struct BranchScaleBwd {
  TensorView x, scale, mask, dy, dx, dscale;
  bool accumulate = false, accumulate_params = false;
};
/// mask[b] = 0 with probability drop_prob, else 1 / (1 - drop_prob); draw index = first_sample + b, counter word c2
/// from `step`. The same integers on every device.
struct DropMask {
  TensorView mask;  // stat [B]
  double drop_prob = 0.0;
  std::uint32_t stream = 0;  // fnv1a("drop_path/<layer name>")
  const StepRecord* step = nullptr;
};

// ---- images and tokens ----------------------------------------------------------------------------------------------

/// images [B,C,S,S'] u8 (decoded to [0,1]) or float, cropped, flipped, normalised, cut into patches:
/// out[B, n, C P P], patch vector in (channel, row, column) order, as a convolution weight [D,C,P,P] flattens.
/// crop[b] = {top, left, flip}: output pixel (y,x) reads image pixel (top + y, left + (flip ? size-1-x : x)), zero
/// (before normalisation) outside the image. Without crop the output size must equal the image size.
struct PatchifyFwd {
  TensorView images, out;
  int patch = 0, size = 0;  // patch side, output image side (before patching)
  TensorView mean, stddev;  // stat [C], optional: (value - mean) / stddev
  TensorView crop;          // i32 [B,3], optional
};
/// Gradient for float images without crop: dimages (+)= dout put back, divided by stddev.
struct PatchifyBwd {
  TensorView dout, dimages, stddev;
  int patch = 0;
  bool accumulate = false;
};

/// out[B, p + n, C] = concat(prefix broadcast over B, patches) + pos. pos has p + n rows, or n rows (then only patches
/// receive it: timm's no_embed_class). prefix (class and register tokens) and pos are optional.
struct TokensFwd {
  TensorView patches /*[B,n,C]*/, prefix /*[p,C]*/, pos /*[p+n|n, C]*/, out;
};
/// Gradients of TokensFwd: dprefix and dpos are sums over the batch.
struct TokensBwd {
  TensorView dout, dpatches, dprefix, dpos;  // each may be absent
  bool accumulate = false, accumulate_prefix = false, accumulate_pos = false;
};

/// out[B,C] = x[b, first] (count == 1), or the mean over tokens [first, first + count).
struct PoolFwd {
  TensorView x /*[B,N,C]*/, out;
  std::int64_t first = 0, count = 1;
};
/// Gradient of PoolFwd.
struct PoolBwd {
  TensorView dout, dx;
  std::int64_t first = 0, count = 1;
  bool accumulate = false;
};  // writes all of dx

/// Softmax cross-entropy, loss and gradient in one pass. Target: labels, or soft rows; smoothing eps mixes in the
/// uniform distribution over the allowed classes (Szegedy et al. 2016, arXiv:1512.00567). class_mask[k] == 0 removes
/// class k from maximum, sum and gradient. dlogits = (softmax - target) * scale. loss[b] is not scaled. correct[b] = 1
/// when the largest allowed logit (ties: lowest index) is the label (or the largest soft target).
struct CrossEntropy {
  TensorView logits;      // [B,K] x
  TensorView labels;      // i32 [B]
  TensorView soft;        // stat [B,K]
  TensorView class_mask;  // u8 [K]
  double smoothing = 0.0, scale = 1.0;
  TensorView loss;     // stat [B]
  TensorView dlogits;  // [B,K] x
  TensorView correct;  // i32 [B]
};

// ---- elementwise and reductions -------------------------------------------------------------------------------------

/// to = from, converted.
struct Cast {
  TensorView from, to;
};  // any dtype to any dtype, same element count
/// Every element = value.
struct Fill {
  TensorView x;
  double value = 0.0;
};
/// out = a + b.
struct Add {
  TensorView a, b, out;
};  // out may be a or b
/// y += alpha x.
struct Axpy {
  TensorView x, y;
  double alpha = 1.0;
};  // y += alpha x; dtypes may differ
/// y (+)= x times a number on the device.
struct ScaleBy {
  TensorView x, factor /*stat [1]*/, y;
  bool accumulate = false;
};  // y (+)= x * factor[0]
/// out (+)= the sum over rows.
struct ColumnSum {
  TensorView x /*[R,C]*/, out /*[C]*/;
  bool accumulate = false;
};
/// The mean of all elements, times scale.
struct Mean {
  TensorView x /*[n]*/, out /*stat [1]*/;
  double scale = 1.0;
};  // out = scale / n * sum x
/// The inner product of all elements.
struct Dot {
  TensorView a, b, out /*f64 [1]*/;
};  // fixed order, accumulated in double per chunk
/// Counters of methods.md D.2 for pre-activations z [R,F] (token rows x hidden units), added per unit.
struct UnitStatistics {
  TensorView z;  // [R,F] x
  TensorView positive, alive_magnitude, alive_gradient, sum_abs,
      sum;               // f64 [F]: counts of z>0, |gelu|>tau, |gelu'|>tau; sums of |gelu| and of gelu
  TensorView max_value;  // f64 [F]: running maximum of gelu(z)
  TensorView rows;       // f64 [1]: += R
  double tau = 0.01;
  GeluKind kind = GeluKind::erf;
};

// clang-format off
#define EVERGRAD_FOR_EACH_KERNEL(X)                                                                                   \
  X(matmul, Matmul)                                                                                                   \
  X(attention_fwd, AttentionFwd) X(attention_bwd, AttentionBwd) X(qk_norm_fwd, QkNormFwd) X(qk_norm_bwd, QkNormBwd)   \
  X(layer_norm_fwd, LayerNormFwd) X(layer_norm_bwd, LayerNormBwd)                                                     \
  X(gelu_fwd, GeluFwd) X(gelu_bwd, GeluBwd) X(crelu_fwd, CreluFwd) X(crelu_bwd, CreluBwd)                             \
  X(branch_scale_fwd, BranchScaleFwd) X(branch_scale_bwd, BranchScaleBwd) X(drop_mask, DropMask)\
  X(patchify_fwd, PatchifyFwd) X(patchify_bwd, PatchifyBwd) X(tokens_fwd, TokensFwd) X(tokens_bwd, TokensBwd) X(pool_fwd, PoolFwd) X(pool_bwd, PoolBwd)\
  X(prompt_match_fwd, PromptMatchFwd) X(prompt_match_bwd, PromptMatchBwd) X(prompt_prepend_fwd, PromptPrependFwd) X(prompt_prepend_bwd, PromptPrependBwd)\
  X(cross_entropy, CrossEntropy)                                                                                      \
  X(cast, Cast) X(fill, Fill) X(add, Add) X(axpy, Axpy) X(scale_by, ScaleBy)                                          \
  X(column_sum, ColumnSum) X(mean, Mean) X(dot, Dot) X(unit_statistics, UnitStatistics)                               \
  EVERGRAD_FOR_EACH_OPTIM_KERNEL(X)
// clang-format on

/// What a device can do. A null entry is a kernel that this device lacks; call() turns it into a sentence.
struct KernelTable {
#define EVERGRAD_ENTRY(name, Args) void (*name)(const Args&, Stream) = nullptr;
  EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY
};

/// The two tables of this library (kernels(Device) is the general way in).
const KernelTable& reference_table();
const KernelTable& cpu_table();

namespace detail {
[[noreturn]] void missing_kernel(Device device, const char* entry);
}

/// Runs one entry of a device's table: call(device, &KernelTable::gelu_fwd, "gelu_fwd", args).
template <class Args>
void call(Device device, void (*KernelTable::*entry)(const Args&, Stream), const char* name, const Args& args,
          Stream stream = {}) {
  auto* const fn = kernels(device).*entry;
  if (!fn) [[unlikely]]
    detail::missing_kernel(device, name);
  fn(args, stream);
}
#define EVERGRAD_CALL(device, entry, ...) ::eg::call(device, &::eg::KernelTable::entry, #entry, __VA_ARGS__)

}  // namespace eg
