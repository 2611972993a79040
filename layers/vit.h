// layers/vit.h - the Vision Transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) with timm's parameter names and
// initialisation (layers/init.h).
//
//   Vit model = make_vit(vit_config("vit-ti", 32, 4));
//   std::vector<Param*> params = parameters(model);
//   arena.build(params, kCpu, DType::f32), arena.initialise(params, seed);
//   Tape tape;
//   const Watched watched(tape, model, false);
//   backward(tape, cross_entropy(forward(model, images, context), labels, {}, {}));
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "autograd/tape.h"
#include "layers/block.h"
#include "layers/patch_embed.h"
#include "layers/prompt.h"
#include "layers/vit_config.h"

namespace eg {

/// The network: its configuration and its layers, in forward order.
struct Vit {
  VitConfig config;
  PatchEmbed embed;
  std::optional<Prompts> prompt;  // with it, only prompts, keys and head learn
  std::vector<Block> blocks;
  Norm norm;  // called "norm", or "fc_norm" behind the mean
  Linear head;
};

/// Every parameter in forward order, which is timm's order.
template <class F>
void visit_params(Vit& v, F&& f) {
  visit_params(v.embed, f);
  if (v.prompt) visit_params(*v.prompt, f);
  for (Block& b : v.blocks) visit_params(b, f);
  visit_params(v.norm, f), visit_params(v.head, f);
}
std::vector<Param*> parameters(Vit& v);

/// The structure, with names, shapes, initialisers, block indices and unit links; values come with ParamArena::build.
/// Throws Error{usage} as check_config does.
Vit make_vit(const VitConfig& config);

/// What diagnosis may look at while a batch goes forward. The tensors carry no tape, and with a probe the last block
/// computes every token.
struct VitProbe {
  std::function<void(int block, const Tensor& tokens)> tokens;         // [B,N,C] after the block
  std::function<void(int block, const Tensor& qkv)> qkv;               // [B,N,3C] as attention reads them
  std::function<void(int block, const Tensor& preactivation)> hidden;  // [B,N,hidden] before the GELU
  std::function<void(const Tensor& features)> features;                // [B,C] that the head reads
  /// The one that may change the pass: what it returns replaces the tokens that attention mixed [B,N,C], before the
  /// output projection. Both may be recorded: the sum with a watched zero gives the gradient that arrives here.
  std::function<Tensor(int block, const Tensor& mixed)> mixed;
};

/// What forward needs beside the images.
struct VitContext {
  bool training = false;             // stochastic depth drops branches
  const StepRecord* step = nullptr;  // needed when training with drop_path > 0
  Tensor mean, stddev;               // statistic dtype [channels], of pixel values in [0, 1]; may be empty
  Tensor crop;                       // i32 [B,3], or empty
  const VitProbe* probe = nullptr;
  /// The pass is about to read the parameters of a block; -1: of what comes before the blocks, depth: of what comes after.
  std::function<void(int block)> reads;
  double batch = 0.0;             // images that the loss is averaged over; 0: those given
  Tensor* prompt_loss = nullptr;  // where a prompt pool leaves what it adds to the loss, statistic dtype [1]
};

/// images u8 or float [B,channels,S,S] -> logits [B,classes]. Throws Error{shape} when the images do not fit the model,
/// Error{usage} when the parameters have no values yet or the step record is missing.
Tensor forward(Vit& v, const Tensor& images, const VitContext& c);
/// The same up to what the head reads, [B,C].
Tensor forward_features(Vit& v, const Tensor& images, const VitContext& c);

/// Makes every parameter that is not frozen a leaf of the tape; its gradient goes to Param::grad. Group b holds block
/// b, group depth everything else. unwatch() must run before the tape dies; Watched does both.
void watch(Tape& tape, Vit& v, bool accumulate);
void unwatch(Vit& v);
/// Makes the parameters leaves of a tape for as long as it lives.
class Watched {
 public:
  Watched(Tape& tape, Vit& v, bool accumulate) : v_(v) { watch(tape, v, accumulate); }
  ~Watched() { unwatch(v_); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  Vit& v_;
};

/// A new draw of the head's weight and bias; equal (seed, redraw) give equal draws, redraw 0 the one of the start. More
/// head policies stand in layers/heads.h.
void reset_head(Vit& v, const ParamArena& arena, std::uint64_t seed, std::uint32_t redraw);
/// Weight and bias zero.
void zero_head(Vit& v, const ParamArena& arena);

}  // namespace eg
