// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void cross_entropy(const CrossEntropy&, Stream) { fail(Kind::internal, "reference: cross_entropy is not written yet"); }
}  // namespace eg::reference
