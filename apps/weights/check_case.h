// apps/weights/check_case.h - our logits and gradients against those of another library, for the same weights.
#pragma once
#include <filesystem>
#include <string>

#include "apps/weights/model_weights.h"

namespace eg {

struct CaseErrors {
  double logits = 0.0;    // |ours - theirs| over |theirs|
  double gradient = 0.0;  // the largest of a layer: |ours - theirs| over the norm of the layer's gradient
  std::string worst;      // that layer
  int gradients = 0;      // tensors compared
};

/// Reads a case: `images` [B,C,S,S] (float, as the network reads them: normalised), `logits` [B,classes] and, if there
/// are any, `labels` [B] with `gradient/NAME` of the mean cross-entropy, under timm's or Hugging Face's names. Computes
/// ours in fp32 on the CPU. The bias of the keys is left out: its gradient is zero, and rounding noise in practice.
/// Throws Error{format|shape} naming file and tensor.
CaseErrors check_case(const ModelWeights& weights, const std::filesystem::path& path);

}  // namespace eg
