// STUB, to be replaced
#include "engine/reference/kernels.h"
namespace eg::reference {
void cast(const Cast&, Stream) { fail(Kind::internal, "reference: cast is not written yet"); }
void fill(const Fill&, Stream) { fail(Kind::internal, "reference: fill is not written yet"); }
void add(const Add&, Stream) { fail(Kind::internal, "reference: add is not written yet"); }
void axpy(const Axpy&, Stream) { fail(Kind::internal, "reference: axpy is not written yet"); }
void scale_by(const ScaleBy&, Stream) { fail(Kind::internal, "reference: scale_by is not written yet"); }
}  // namespace eg::reference
