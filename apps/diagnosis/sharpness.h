// apps/diagnosis/sharpness.h - how curved the loss of a network is, as it is and as Adam sees it (methods.md D.5).
#pragma once
#include <vector>

#include "apps/diagnosis/diagnosis.h"

namespace eg {

/// D = sqrt(v_hat) + eps of every weight, laid out as the arena, where the trainer's update rule is Adam or AdamW and has
/// made an update since its moments were cleared; otherwise empty. Padding, which no gradient reaches, gets 1.
std::vector<double> adam_preconditioner(Trainer& trainer, const MethodSpec& method);

/// model["hessian.top"]: the largest eigenvalue of the Hessian of the loss on `batch`; with a preconditioner (not empty)
/// also model["hessian.preconditioned_top"], that of D^-1/2 H D^-1/2: Adam's full-batch steps are stable while it is below
/// (2 + 2 beta1) / ((1 - beta1) lr), which is 38 / lr for beta1 = 0.9 (Cohen et al. 2022, arXiv:2207.14484). NaN where it
/// did not converge. Also model["hessian.trace"], and model["sharpness.sam"]: by how much the loss grows on a step of
/// length 0.05 along the gradient (Foret et al. 2021). All are NaN for bf16, whose gradients are too coarse for differences. Weights are put back exactly;
/// gradients are not.
void measure_sharpness(Trainer& trainer, const Batch& batch, const Tensor& class_mask,
                       const std::vector<double>& preconditioner, Diagnosis& d);

}  // namespace eg
