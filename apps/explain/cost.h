// apps/explain/cost.h - what one training step costs, operation by operation, from shapes alone: arithmetic, memory
// traffic, memory kept, and the time below which a machine with given ceilings cannot be.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "layers/vit_config.h"
#include "optim/optimizer.h"

namespace eg {

enum class Pass : std::uint8_t { forward, backward, update };

/// One kind of kernel call. The numbers are those of all its calls together, and what the mathematics needs: every
/// operand is read once and every result written once, whatever caches do.
struct Operation {
  Pass pass = Pass::forward;
  std::string name;        // "fc1 + GELU", "qkv: d weight"
  std::string shape;       // of one call; a product [a,b] x [b,c] is "a x b x c"
  std::int64_t calls = 1;  // one per block, or 1
  std::int64_t parameters = 0;
  double flops = 0.0;    // one multiply-add = 2
  double bytes = 0.0;    // read and written
  double kept = 0.0;     // bytes that stay until backward reads them
  bool product = false;  // a matrix product or attention: what the usual counts of FLOPs count
};

struct StepShape {
  VitConfig vit;  // its precision is that of activations
  std::int64_t batch = 64;
  bool narrow_gradients = false;  // parameter gradients in the activations' type (GPUs, decisions: gradient dtype)
  MethodSpec method;              // arrow, or any update rule that moments_per_weight knows
};

/// Every operation of one training step, in the order in which they run. Throws Error{usage} for a method whose update
/// it does not know, and as check_config does.
std::vector<Operation> training_step(const StepShape& s);

/// What a machine can do at best.
struct Roof {
  double gflops = 0.0, gb_per_s = 0.0;  // gflops 0: unknown, only memory bounds
  std::string source;
};
/// Seconds below which the operation cannot be (Williams, Waterman and Patterson 2009, the roofline): the slower of its
/// arithmetic at full speed and its traffic at full speed.
double floor_seconds(const Operation& o, const Roof& roof);
/// True when arithmetic is the slower of the two.
bool compute_bound(const Operation& o, const Roof& roof);

}  // namespace eg
