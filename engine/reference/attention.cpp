// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void attention_fwd(const AttentionFwd&, Stream) { fail(Kind::internal, "reference: attention_fwd is not written yet"); }
void attention_bwd(const AttentionBwd&, Stream) { fail(Kind::internal, "reference: attention_bwd is not written yet"); }
void qk_norm_fwd(const QkNormFwd&, Stream) { fail(Kind::internal, "reference: qk_norm_fwd is not written yet"); }
void qk_norm_bwd(const QkNormBwd&, Stream) { fail(Kind::internal, "reference: qk_norm_bwd is not written yet"); }
}  // namespace eg::reference
