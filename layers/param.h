// layers/param.h - a learnable tensor and everything that others may ask about it. optim/ sees std::span<Param* const>
// and the flat arenas, and nothing else of layers/.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"
#include "engine/unit_sums.h"

namespace eg {

/// What a parameter is for: decides weight decay, and which methods touch it (methods.md 0.3).
enum class Role : std::uint8_t { weight, bias, norm, embedding, head };
/// Which matrix of a transformer block it is; `qkv` is the fused projection, whose rows are q, k, v thirds.
enum class Module : std::uint8_t {
  none,
  qkv,
  proj,
  fc1,
  fc2,
  norm1,
  norm2,
  qk_norm,
  layer_scale,
  patch_embed,
  tokens,
  head,
  final_norm
};

/// How a parameter is drawn at the start, and again when a method resets it.
struct Init {
  enum class Rule : std::uint8_t { zeros, ones, constant, normal, trunc_normal, uniform } rule = Rule::zeros;
  double scale = 0.0;  // std of normal and trunc_normal (cut at +-2 in absolute value, as timm does), bound of uniform,
                       // the constant
};

/// FFN units link row i of fc1's weight, entry i of fc1's bias and column i of fc2's weight: indices into the parameter
/// list; fc2's bias goes with the layer as a whole.
struct UnitLink {
  int fc1_weight = -1, fc1_bias = -1, fc2_weight = -1, fc2_bias = -1;
};

/// A learnable tensor, what it is for, and where its numbers lie.
struct Param {
  std::string name;  // timm's: "blocks.3.attn.qkv.weight"
  Role role = Role::weight;
  Module module = Module::none;
  Shape shape;  // out x in for matrices
  Init init;
  std::int64_t fan_in = 0;
  int block = -1;  // index of the transformer block, -1 outside
  bool decays =
      false;  // takes part in weight decay (matrices and the head's matrix; not biases, norms, tokens, positions)
  bool frozen = false;
  bool imported = false;    // its first value came from a file (--init): a fresh network has it too
  std::int64_t offset = 0;  // first element in the flat arenas; a multiple of 16
  UnitLink link;
  UnitSums sums;  // on fc1's weight, for methods that watch hidden units; empty where nobody does

  Tensor value;   // what the forward pass reads: a slice of the master arena, or of the bf16 copy
  Tensor master;  // fp32 (f64 on reference): a slice of ParamArena::master
  Tensor grad;    // a slice of ParamArena::grad
  std::int64_t size() const { return shape.size(); }
};

/// One allocation each for masters, gradients and (bf16) working copies, ordered by backward completion: the last
/// layer's parameters come first, so that an all-reduce bucket is a range whose end grows while backward runs.
struct ParamArena {
  Tensor master, grad, work;  // work is empty in fp32
  /// Where ranks divide the masters (--zero 1 with a working copy): this rank's pieces of them. Then `master` and every Param::master
  /// are empty, but while somebody needs them whole (apps/distributed/divided_weights.h).
  Tensor own_master;
  std::int64_t size = 0;  // elements, including padding (always zero)
  Device device;
  /// Lays out `params` (given in forward order), allocates, and points value/master/grad of each at its slice.
  /// Gradients have the masters' type; with `narrow_gradients` the activation's, which halves their traffic where one
  /// backward pass makes the whole gradient (products still sum in fp32).
  void build(std::span<Param* const> params, Device device, DType activation, bool narrow_gradients = false);
  /// Draws one parameter from its Init on the host: the same bits on every device, key (seed, "init/<name>", step).
  static std::vector<double> draw(const Param& p, std::uint64_t seed, std::uint32_t redraw = 0);
  /// One row of a matrix, drawn from its Init for a unit that begins at this step: key (seed, "unit/<name>.<row>", step).
  static std::vector<double> draw_row(const Param& p, std::int64_t row, std::uint64_t seed, std::uint32_t step);
  /// Some elements, drawn anew at this step: key (seed, "element/<name>", step).
  static std::vector<double> draw_elements(const Param& p, std::span<const std::int64_t> which, std::uint64_t seed,
                                           std::uint32_t step);
  void initialise(std::span<Param* const> params, std::uint64_t seed) const;
  DType master_type() const { return device.statistic(); }
  /// Refreshes the bf16 working copy from the masters (after a load or a reset; optimizers do it in their own pass).
  void refresh_work() const;
};

}  // namespace eg
