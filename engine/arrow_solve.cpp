// engine/arrow_solve.cpp - see arrow_solve.h.
#include "engine/arrow_solve.h"

#include <vector>

#include "engine/kernels.h"

namespace eg {

ArrowSolveInput arrow_solve_input(const ArrowSolve& a) {
  ArrowSolveInput in;
  in.grams = a.grams.as<double>(), in.dots = a.dots.as<double>();
  in.tensors = a.grams.dim(0), in.parameters = a.parameters, in.vector_mu = a.vector_mu;
  in.options = a.options, in.step = a.step, in.state = a.state;
  return in;
}

void arrow_solve_on_host(const ArrowSolve& a) {
  static thread_local std::vector<double> memory(arrow_solve_bytes(kArrowMaxWindow) / sizeof(double) + 1);
  arrow_solve_step(OneWorker{}, arrow_solve_input(a), memory.data());
}

}  // namespace eg
