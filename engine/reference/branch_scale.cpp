// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void branch_scale_fwd(const BranchScaleFwd&, Stream) {
  fail(Kind::internal, "reference: branch_scale_fwd is not written yet");
}
void branch_scale_bwd(const BranchScaleBwd&, Stream) {
  fail(Kind::internal, "reference: branch_scale_bwd is not written yet");
}
void drop_mask(const DropMask&, Stream) { fail(Kind::internal, "reference: drop_mask is not written yet"); }
}  // namespace eg::reference
