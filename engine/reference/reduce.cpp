// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void column_sum(const ColumnSum&, Stream) { fail(Kind::internal, "reference: column_sum is not written yet"); }
void mean(const Mean&, Stream) { fail(Kind::internal, "reference: mean is not written yet"); }
void dot(const Dot&, Stream) { fail(Kind::internal, "reference: dot is not written yet"); }
}  // namespace eg::reference
