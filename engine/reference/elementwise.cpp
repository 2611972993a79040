// engine/reference/elementwise.cpp - one number in, one number out.
//
//   cast  to = from            fill      x = value          add  out = a + b
//   axpy  y += alpha x         scale_by  y (+)= x factor[0]
//
// All views of a call hold the same number of elements and may differ in dtype; out may be a or b.
#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void cast(const Cast& a, Stream) {
  for (std::int64_t i = 0; i < a.to.size(); ++i) put(a.to, i, get(a.from, i));
}

void fill(const Fill& a, Stream) {
  for (std::int64_t i = 0; i < a.x.size(); ++i) put(a.x, i, a.value);
}

void add(const Add& a, Stream) {
  for (std::int64_t i = 0; i < a.out.size(); ++i) put(a.out, i, get(a.a, i) + get(a.b, i));
}

void axpy(const Axpy& a, Stream) {
  for (std::int64_t i = 0; i < a.y.size(); ++i) put(a.y, i, a.alpha * get(a.x, i), true);
}

void scale_by(const ScaleBy& a, Stream) {
  for (std::int64_t i = 0; i < a.y.size(); ++i) put(a.y, i, get(a.x, i) * get(a.factor, 0), a.accumulate);
}

}  // namespace eg::reference
