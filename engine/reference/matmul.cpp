// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void matmul(const Matmul&, Stream) { fail(Kind::internal, "reference: matmul is not written yet"); }
}  // namespace eg::reference
