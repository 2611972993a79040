// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void gelu_fwd(const GeluFwd&, Stream) { fail(Kind::internal, "reference: gelu_fwd is not written yet"); }
void gelu_bwd(const GeluBwd&, Stream) { fail(Kind::internal, "reference: gelu_bwd is not written yet"); }
void unit_statistics(const UnitStatistics&, Stream) {
  fail(Kind::internal, "reference: unit_statistics is not written yet");
}
}  // namespace eg::reference
