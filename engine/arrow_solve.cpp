// engine/arrow_solve.cpp - see arrow_solve.h.
#include "engine/arrow_solve.h"

#include <vector>

#include "engine/kernels.h"

namespace eg {

ArrowSolveInput arrow_solve_input(const ArrowSolve& a, const ArrowSystem& system) {
  ArrowSolveInput in;
  in.grams = system.grams.as<double>(), in.dots = system.dots.as<double>();
  in.tensors = system.grams.dim(0), in.parameters = system.parameters, in.vector_mu = a.vector_mu;
  in.options = a.options, in.step = a.step, in.state = system.state;
  return in;
}

void arrow_solve_on_host(const ArrowSolve& a) {
  static thread_local std::vector<double> memory(arrow_solve_bytes(kArrowMaxWindow) / sizeof(double) + 1);
  for (const ArrowSystem& system : a.systems)
    arrow_solve_step(OneWorker{}, arrow_solve_input(a, system), memory.data());
}

}  // namespace eg
