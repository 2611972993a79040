// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void patchify_fwd(const PatchifyFwd&, Stream) { fail(Kind::internal, "reference: patchify_fwd is not written yet"); }
void patchify_bwd(const PatchifyBwd&, Stream) { fail(Kind::internal, "reference: patchify_bwd is not written yet"); }
}  // namespace eg::reference
