// engine/arrow_solve.h - the W x W part of ARROW (methods.md A.3.2): a handful of doubles, the same code on both host
// devices.
//
// With C = (1/D) G G^T the step (alpha I + beta C)^-1 g equals G c with c = (alpha I + (beta/D) K)^-1 e_newest and
// K = G^T G, because g is itself the newest column of G (push-through identity). So the P-dimensional system is a W x W
// one.
#pragma once
#include "engine/kernels.h"

namespace eg {

/// Commits the observed slot and writes coefficients, norms and damping into a.state; see ArrowSolve.
void arrow_solve_on_host(const ArrowSolve& a);

}  // namespace eg
