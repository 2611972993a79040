// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void tokens_fwd(const TokensFwd&, Stream) { fail(Kind::internal, "reference: tokens_fwd is not written yet"); }
void tokens_bwd(const TokensBwd&, Stream) { fail(Kind::internal, "reference: tokens_bwd is not written yet"); }
void pool_fwd(const PoolFwd&, Stream) { fail(Kind::internal, "reference: pool_fwd is not written yet"); }
void pool_bwd(const PoolBwd&, Stream) { fail(Kind::internal, "reference: pool_bwd is not written yet"); }
}  // namespace eg::reference
