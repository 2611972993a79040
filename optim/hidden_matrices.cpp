// optim/hidden_matrices.cpp - see hidden_matrices.h.
#include "optim/hidden_matrices.h"

namespace eg {

namespace {
bool is_hidden_matrix(const Param& p) {
  const bool module =
      p.module == Module::qkv || p.module == Module::proj || p.module == Module::fc1 || p.module == Module::fc2;
  return module && p.role == Role::weight && p.block >= 0 && p.shape.rank() == 2;
}
}  // namespace

std::vector<HiddenMatrix> hidden_matrices(const Parameters& parameters) {
  std::vector<HiddenMatrix> all;
  for (const Param* p : parameters.list) {
    if (!is_hidden_matrix(*p) || p->frozen) continue;
    const std::int64_t rows = p->shape.rows(), cols = p->shape.cols();
    if (p->module == Module::qkv && rows % 3 == 0)
      for (int i = 0; i < 3; ++i) all.push_back({p, "qkv"[i], p -> offset + i*(rows / 3) * cols, rows / 3, cols});
    else
      all.push_back({p, 0, p->offset, rows, cols});
  }
  return all;
}

void require_trainable_matrices(const Parameters& parameters, const std::string& method) {
  bool any = false, trainable = false;
  for (const Param* p : parameters.list) any |= is_hidden_matrix(*p), trainable |= is_hidden_matrix(*p) && !p->frozen;
  check(!any || trainable, Kind::usage, [&] {
    return cat(method, ": works on the matrices of the blocks, and all of them are frozen; leave out ", method,
               ", or what freezes them");
  });
}

TensorView part_of(const Tensor& array, const HiddenMatrix& m) {
  if (!array) return {};
  return {static_cast<char*>(array.data()) + std::size_t(m.begin) * size_of(array.dtype()),
          array.dtype(),
          {m.rows, m.cols}};
}

}  // namespace eg
