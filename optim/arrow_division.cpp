// optim/arrow_division.cpp - see arrow_division.h.
#include "optim/arrow_division.h"

#include <algorithm>

namespace eg {
Division::Piece own_run(const Division* d, const ArrowRun& run) {
  return d ? d->own(run.begin, run.begin + run.size) : Division::Piece{run.begin, run.size, run.begin};
}

std::vector<Stretch> stretches_of(const Division* sums, const Division::Piece& kept) {
  if (!sums) return {{kept, true}};
  const std::int64_t end = kept.begin + kept.size;
  const Division::Piece own = sums->own(kept.begin, end);
  if (own.size == 0) return {{kept, false}, {{kept.begin, 0, kept.own}, true}};
  return {{kept.within(kept.begin, own.begin), false},
          {kept.within(own.begin, own.begin + own.size), true},
          {kept.within(own.begin + own.size, end), false}};
}

TensorPart part_of_run(const Division& d, const ArrowRun& run, std::int64_t rows) {
  const Division::Piece own = own_run(&d, run);
  TensorPart part{rows ? Shape{rows, run.size} : Shape{run.size}, {}};
  for (std::int64_t row = 0; row < std::max<std::int64_t>(rows, 1) && own.size > 0; ++row)
    part.pieces.push_back({row * run.size + own.begin - run.begin, own.size, row * own.size});
  return part;
}

}  // namespace eg
