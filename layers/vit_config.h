// layers/vit_config.h - the sizes and switches of a Vision Transformer, and what follows from them: operations,
// parameters, memory.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/kernels.h"
#include "engine/prompt_pool.h"

namespace eg {

/// Learned positions, or fixed sines and cosines.
enum class PosEmbed : std::uint8_t { learned, sincos };
/// Of the MLP's hidden units. crelu: concatenated ReLU (Shang et al. 2016, arXiv:1603.05201), which gives the second
/// matrix two inputs for each unit; two thirds of the units make the same number of parameters and operations.
enum class Activation : std::uint8_t { gelu, crelu };

/// What a training step holds at its peak, in bytes; optimizer state comes on top.
struct MemoryPlan {
  double weights = 0.0;      // masters, and the bf16 working copies where there are any
  double gradients = 0.0;    // of parameters
  double activations = 0.0;  // kept for backward plus the gradients in flight, at the worst moment of backward
  double total() const { return weights + gradients + activations; }
};

/// The network in numbers. The defaults are ViT-Ti with 4 x 4 patches on 32 x 32 images.
struct VitConfig {
  int image_size = 32, patch = 4, channels = 3;
  int dim = 192, depth = 12, heads = 3, classes = 10;
  double mlp_ratio = 4.0;
  bool class_token = true;  // false: the head reads the mean of the patch tokens, and the last norm stands behind the
                            // mean and is called fc_norm, as with timm's global_pool='avg'
  bool mean_pool = false;   // with a class token: the head reads the mean of the patch tokens all the same
  bool norm_first =
      false;  // mean pooling: the last norm stands before the mean and is called norm (timm: fc_norm=False)
  PosEmbed pos = PosEmbed::learned;
  Activation activation = Activation::gelu;
  GeluKind gelu = GeluKind::erf;
  bool qk_norm = false;
  double layer_scale = 0.0;      // initial value; 0: none
  double drop_path = 0.0;        // of the last block; grows linearly over the blocks
  int registers = 0;             // register tokens (Darcet et al. 2023, arXiv:2309.16588)
  double eps = 1e-6;             // of every layer norm
  DType precision = DType::f32;  // of activations and working weights
  bool recompute = false;        // keep only each block's input, and run its forward again in backward
  bool narrow_last = true;  // with a class token: behind the last mixing of tokens compute that token only. The head
                            // sees no other one, so loss and gradients are the same and 6 % of a 12-block step is saved
  PromptPool prompts;       // see layers/prompt.h

  std::int64_t patches() const { return std::int64_t(image_size / patch) * (image_size / patch); }
  /// Prompts come first, then the class token, registers, patches.
  std::int64_t prompt_tokens() const { return prompts.pool ? std::int64_t(prompts.select) * prompts.length : 0; }
  std::int64_t prefix() const { return prompt_tokens() + (class_token ? 1 : 0) + registers; }
  std::int64_t tokens() const { return patches() + prefix(); }
  /// True when the head reads the mean of the patch tokens.
  bool pools_mean() const { return !class_token || mean_pool; }
  /// Hidden units of the MLP: mlp_ratio x dim, or two thirds of it with CReLU, rounded down.
  std::int64_t hidden() const {
    const auto units = std::int64_t(double(dim) * mlp_ratio);
    return activation == Activation::crelu ? units * 2 / 3 : units;
  }
  /// What they give to the MLP's second matrix.
  std::int64_t hidden_outputs() const { return activation == Activation::crelu ? 2 * hidden() : hidden(); }
  /// True when block `index` goes on with the class token alone (see narrow_last).
  bool narrows(int index) const { return narrow_last && !pools_mean() && index + 1 == depth && !prompts.pool; }

  /// Operations (one multiply-add = 2) of one image. The nominal count is the usual one of the whole network
  /// (products only): 24 S D^2 + 4 S^2 D per block at mlp_ratio 4. A training step costs three times that, minus
  /// the input gradient of the patch projection. The executed count leaves out what narrow_last saves and adds
  /// recomputation: use it for shares of a ceiling, the nominal one for comparisons of speed.
  double forward_flops() const;
  double train_flops() const;
  double executed_train_flops() const;
  std::int64_t parameter_count() const;
  MemoryPlan memory_plan(std::int64_t batch) const;
  /// Bytes of activations and of gradients in flight at the peak of a training step.
  double activation_bytes(std::int64_t batch) const { return memory_plan(batch).activations; }
  /// One line for people.
  std::string describe() const;
};

/// Names of the presets, smallest first: vit-ti, vit-s, vit-b, vit-l.
std::vector<std::string> vit_presets();
/// A preset; every non-zero argument replaces its value. Throws Error{usage} for an unknown name and for sizes that do
/// not fit together, naming the flag to change.
VitConfig vit_config(const std::string& preset, int image_size, int patch, int dim = 0, int depth = 0, int heads = 0);
/// Throws Error{usage} when the configuration cannot be built, naming the flag, its value and what would be right.
void check_config(const VitConfig& c);

}  // namespace eg
