// optim/arrow_division.cpp - see arrow_division.h.
#include "optim/arrow_division.h"

#include <algorithm>

namespace eg {
Division::Piece own_run(const Division* d, const ArrowRun& run) {
  return d ? d->own(run.begin, run.begin + run.size) : Division::Piece{run.begin, run.size, run.begin};
}

TensorPart part_of_run(const Division& d, const ArrowRun& run, std::int64_t rows) {
  const Division::Piece own = own_run(&d, run);
  TensorPart part{rows ? Shape{rows, run.size} : Shape{run.size}, {}};
  for (std::int64_t row = 0; row < std::max<std::int64_t>(rows, 1) && own.size > 0; ++row)
    part.pieces.push_back({row * run.size + own.begin - run.begin, own.size, row * own.size});
  return part;
}

}  // namespace eg
