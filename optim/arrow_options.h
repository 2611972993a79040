// optim/arrow_options.h - what `--methods arrow:...` may say, read into one struct.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/kernels_arrow.h"
#include "optim/optimizer.h"

namespace eg {

/// Which parameters share one window, one Gram matrix and one solve (methods.md A.3.4).
enum class ArrowGrouping : std::uint8_t { tensor, module, block, global };
/// What happens to the window when a task begins (methods.md A.3.6).
enum class ArrowBoundary : std::uint8_t { clear, keep, clear_keep_warm };

struct ArrowSettings {
  std::vector<int> blocks;       // indices of the transformer blocks whose attention ARROW updates
  std::string tensors = "qkvo";  // which projections: query, key, value, output
  bool mlp = false;              // also fc1 and fc2
  bool biases = false;           // also the biases of the targets, except the key's, whose gradient is zero
  ArrowGrouping grouping = ArrowGrouping::block;
  ArrowOptions solve;
  ArrowBoundary boundary = ArrowBoundary::clear;
  ArrowGraft graft = ArrowGraft::adamw;
  double momentum = 0.0;
  bool precondition_momentum = false;  // M2 of methods.md A.3.6 instead of M1
  bool bf16_ring = false;
  bool in_backward = false;   // a group is updated as soon as its gradient is final, beside the rest of backward
  bool norm_control = false;  // method norm-control: the base's direction with the length of ARROW's step
  bool adamw_base = true;     // the rest of the network and the warm-up: AdamW, or else plain SGD
  double lr = -1.0;           // ARROW's own rate; negative: the base rate
  double weight_decay = 0.0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

/// The options that ARROW knows, for --list-methods and for errors.
extern const char* const kArrowOptionsText;
/// Reads a spec for a model of `depth` blocks. Throws Error{usage} naming option, value and what is allowed, also for
/// an option that would have no effect beside the others.
ArrowSettings read_arrow_settings(const MethodSpec& spec, int depth, double weight_decay);
/// "last-4", "first-2", "all", or single blocks and ranges as "3-5+9": indices in ascending order.
std::vector<int> parse_blocks(const std::string& text, int depth);

}  // namespace eg
