// engine/cpu/crelu.cpp - concatenated ReLU (Shang et al. 2016, arXiv:1603.05201). Bound by memory: one tensor in, two out.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/crelu.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void crelu_fwd(const CreluFwd& a, Stream) { EVERGRAD_DISPATCH(crelu_fwd, a); }
void crelu_bwd(const CreluBwd& a, Stream) { EVERGRAD_DISPATCH(crelu_bwd, a); }

}  // namespace eg::cpu
