// cuda/kernels/branch_scale.cpp - host entries of branch_scale.cu.
#include "cuda/kernels/branch_scale.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

void scale_rows(const char* name, const TensorView& x, const TensorView& scale, const TensorView& mask,
                const TensorView& out, bool accumulate, Stream s) {
  BranchScaleParams p;
  p.x = operand(x), p.scale = operand(scale), p.out = operand(out), p.mask = mask.as<float>();
  p.n = x.size(), p.columns = x.cols(), p.per_sample = p.n ? p.n / x.dim(0) : 1, p.accumulate = accumulate;
  p.wide = p.columns % kPack == 0 && wide_access({&x, &scale, &out});
  launch(name, branch_scale_kernel(), dim3(stream_blocks(p.n)), dim3(stream_threads(p.n)), 0, s, p);
}

}  // namespace

void branch_scale_fwd(const BranchScaleFwd& a, Stream s) {
  scale_rows("branch_scale_fwd", a.x, a.scale, a.mask, a.y, false, s);
}

void branch_scale_bwd(const BranchScaleBwd& a, Stream s) {
  if (a.dscale) {  // before dx, which may overwrite dy
    BranchScaleGradParams p;
    p.x = operand(a.x), p.dy = operand(a.dy), p.mask = a.mask.as<float>();
    p.rows = a.dy.rows(), p.columns = a.dy.cols(), p.rows_per_sample = p.rows ? p.rows / a.dy.dim(0) : 1;
    const bool wide = p.columns % kPack == 0 && a.x.dtype == a.dy.dtype && wide_access({&a.x, &a.dy});
    const std::int64_t chunks = chunks_of(p.rows, p.columns, wide);
    p.partials = static_cast<float*>(scratch(s, std::size_t(chunks * p.columns) * sizeof(float)).data);
    launch("branch_scale_bwd scale", branch_scale_grad_kernel(wide, a.x.dtype),
           dim3(unsigned(ceil_div(p.columns, columns_of_block(wide))), unsigned(chunks)), dim3(kColumns, kRowLanes), 0,
           s, p);
    finish_columns(p.partials, chunks, p.columns, operand(a.dscale), a.accumulate_params, s);
  }
  if (a.dx) scale_rows("branch_scale_bwd", a.dy, a.scale, a.mask, a.dx, a.accumulate, s);
}

void drop_mask(const DropMask& a, Stream s) {
  DropMaskParams p;
  p.mask = a.mask.as<float>(), p.step = a.step, p.n = a.mask.size(), p.drop_prob = a.drop_prob, p.stream = a.stream;
  launch("drop_mask", drop_mask_kernel(), dim3(unsigned((p.n + 127) / 128)), dim3(128), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
