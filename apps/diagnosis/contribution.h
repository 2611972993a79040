// apps/diagnosis/contribution.h - how much each hidden unit and each attention head adds to the stream of tokens.
#pragma once
#include <vector>

#include "apps/trainer.h"

namespace eg {

/// By block: contribution utility (Dohare et al. 2024), the mean size of a unit's activation times the mean size of the
/// weights that carry it on.
struct Contribution {
  std::vector<std::vector<double>> units;  // [blocks][columns of fc2]
  std::vector<std::vector<double>>
      heads;  // [blocks][heads]: mean over the channels of a head, through the output projection
};

/// Measured on the loader's images, up to the first 64 that it brings, without augmentation of its own.
Contribution measure_contribution(Trainer& trainer, Loader& images);

}  // namespace eg
