// optim/hidden_matrices.cpp - see hidden_matrices.h.
#include "optim/hidden_matrices.h"

namespace eg {

std::vector<HiddenMatrix> hidden_matrices(const Parameters& parameters) {
  std::vector<HiddenMatrix> all;
  for (const Param* p : parameters.list) {
    const bool module =
        p->module == Module::qkv || p->module == Module::proj || p->module == Module::fc1 || p->module == Module::fc2;
    if (!module || p->frozen || p->role != Role::weight || p->block < 0 || p->shape.rank() != 2) continue;
    const std::int64_t rows = p->shape.rows(), cols = p->shape.cols();
    if (p->module == Module::qkv && rows % 3 == 0)
      for (int i = 0; i < 3; ++i) all.push_back({p, "qkv"[i], p -> offset + i*(rows / 3) * cols, rows / 3, cols});
    else
      all.push_back({p, 0, p->offset, rows, cols});
  }
  return all;
}

TensorView part_of(const Tensor& array, const HiddenMatrix& m) {
  if (!array) return {};
  return {static_cast<char*>(array.data()) + std::size_t(m.begin) * size_of(array.dtype()),
          array.dtype(),
          {m.rows, m.cols}};
}

}  // namespace eg
