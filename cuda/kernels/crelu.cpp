// cuda/kernels/crelu.cpp - host entries of crelu.cu.
#include "cuda/kernels/crelu.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"

namespace eg::EVERGRAD_BACKEND {

void crelu_fwd(const CreluFwd& a, Stream s) {
  CreluParams p;
  p.x = operand(a.x), p.y = operand(a.y), p.dx = {}, p.n = a.x.size(), p.width = a.x.cols(), p.accumulate = false;
  p.wide = p.width % kPack == 0 && wide_access({&a.x, &a.y});
  launch("crelu_fwd", crelu_fwd_kernel(), dim3(stream_blocks(p.n)), dim3(stream_threads(p.n)), 0, s, p);
}

void crelu_bwd(const CreluBwd& a, Stream s) {
  CreluParams p;
  p.x = operand(a.x), p.y = operand(a.dy), p.dx = operand(a.dx), p.n = a.x.size(), p.width = a.x.cols();
  p.accumulate = a.accumulate, p.wide = p.width % kPack == 0 && wide_access({&a.x, &a.dy, &a.dx});
  launch("crelu_bwd", crelu_bwd_kernel(), dim3(stream_blocks(p.n)), dim3(stream_threads(p.n)), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
