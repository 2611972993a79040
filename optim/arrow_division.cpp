// optim/arrow_division.cpp - see arrow_division.h.
#include "optim/arrow_division.h"

namespace eg {
namespace {

/// Copies this rank's columns between `own` [rows, n] and `whole` [rows, run.size].
void copy_columns(const Division& d, const Tensor& whole, const Tensor& own, const ArrowRun& run, bool into_whole) {
  const Division::Piece part = own_run(&d, run);
  const std::size_t width = size_of(own.dtype()), n = std::size_t(part.size) * width;
  if (n == 0) return;
  const std::size_t at = std::size_t(part.begin - run.begin) * width;
  DeviceRuntime& device = runtime(own.device());
  for (std::size_t row = 0; row < std::size_t(own.size() / part.size); ++row) {
    auto* const mine = static_cast<std::byte*>(own.data()) + row * n;
    auto* const theirs = static_cast<std::byte*>(whole.data()) + row * std::size_t(run.size) * width + at;
    into_whole ? device.copy_within(theirs, mine, n, {}) : device.copy_within(mine, theirs, n, {});
  }
}

}  // namespace

Division::Piece own_run(const Division* d, const ArrowRun& run) {
  return d ? d->own(run.begin, run.begin + run.size) : Division::Piece{run.begin, run.size, run.begin};
}

// One rank has each element and the others zero, so the sum is exact in every type.
Tensor whole_run(const Division& d, const Tensor& own, const ArrowRun& run) {
  const std::int64_t rows = own.rank() == 2 ? own.dim(0) : 1;
  Tensor whole = Tensor::zeros(own.rank() == 2 ? Shape{rows, run.size} : Shape{run.size}, own.dtype(), own.device());
  copy_columns(d, whole, own, run, true);
  d.ranks->all_reduce(whole.data(), whole.size(), whole.dtype(), {});
  runtime(own.device()).synchronize({});
  return whole;
}

void take_own(const Division& d, const Tensor& whole, const Tensor& own, const ArrowRun& run) {
  copy_columns(d, whole, own, run, false);
}

}  // namespace eg
