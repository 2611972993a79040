// autograd/gradcheck.cpp - central differences.
#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "engine/rng.h"

namespace eg {

namespace {

using Function = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

/// The fixed direction r_i that turns output i into a number.
Tensor direction(const Tensor& out, std::size_t i) {
  const Key k = key(20, "gradcheck", "direction", std::uint32_t(i));
  std::vector<double> r(std::size_t(out.size()));
  for (std::size_t j = 0; j < r.size(); ++j) r[j] = k.normal(j);
  return Tensor::from(std::span<const double>(r), out.shape(), out.dtype(), out.device());
}

/// Analytic gradients of the wanted inputs (empty vectors for the others).
std::vector<std::vector<double>> analytic(const Function& fn, std::span<const Tensor> inputs,
                                          const std::vector<bool>& wanted) {
  Tape tape;
  std::vector<Tensor> in(inputs.begin(), inputs.end()), gradients(inputs.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (!wanted[i]) continue;
    gradients[i] = Tensor::empty(in[i].shape(), DType::f64, in[i].device());
    in[i] = in[i].detached();
    tape.watch(in[i], gradients[i].view());
  }
  std::vector<Tensor> outputs, directions;
  const std::vector<Tensor> all = fn(in);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!all[i] || !is_float(all[i].dtype())) continue;
    outputs.push_back(all[i]);
    directions.push_back(direction(all[i], i));
  }
  backward(tape, outputs, directions);
  std::vector<std::vector<double>> values(in.size());
  for (std::size_t i = 0; i < in.size(); ++i)
    if (gradients[i]) values[i] = gradients[i].to_host();
  return values;
}

/// (sum_i <r_i, out_i(+h)> - sum_i <r_i, out_i(-h)>) / 2h, subtracting entry by entry so that big terms cancel exactly.
double numeric(const Function& fn, std::span<const Tensor> inputs, std::size_t which, std::int64_t entry) {
  std::vector<Tensor> in(inputs.begin(), inputs.end());
  for (Tensor& t : in)
    if (t) t = t.detached();
  in[which] = inputs[which].clone();
  double* const at = in[which].data_as<double>() + entry;
  const double x = *at, h = 6.1e-6 * std::max(1.0, std::abs(x));
  *at = x + h;
  const double up_at = *at;
  const std::vector<Tensor> up = fn(in);
  *at = x - h;
  const double width = up_at - *at;
  const std::vector<Tensor> down = fn(in);
  double sum = 0.0;
  for (std::size_t i = 0; i < up.size(); ++i) {
    if (!up[i] || !is_float(up[i].dtype())) continue;
    const std::vector<double> a = up[i].to_host(), b = down[i].to_host(), r = direction(up[i], i).to_host();
    for (std::size_t j = 0; j < a.size(); ++j) sum += r[j] * (a[j] - b[j]);
  }
  return sum / width;
}

}  // namespace

GradcheckResult gradcheck(const Function& fn, std::span<const Tensor> inputs, const std::vector<bool>& wanted,
                          std::int64_t max_entries) {
  check(wanted.size() == inputs.size(), Kind::usage,
        [&] { return cat("gradcheck: wanted has ", wanted.size(), " entries for ", inputs.size(), " inputs"); });
  for (std::size_t i = 0; i < inputs.size(); ++i)
    check(!wanted[i] || (inputs[i] && inputs[i].dtype() == DType::f64 && inputs[i].device().is_host()), Kind::dtype,
          [&] { return cat("gradcheck: input ", i, " must be f64 in host memory"); });
  const auto gradients = analytic(fn, inputs, wanted);
  GradcheckResult result;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted[i]) continue;
    const std::int64_t size = inputs[i].size(), count = std::min(size, max_entries);
    for (std::int64_t k = 0; k < count; ++k) {
      const std::int64_t entry = k * size / count;
      const double a = gradients[i][std::size_t(entry)], n = numeric(fn, inputs, i, entry);
      const double share = std::abs(a - n) / (1e-8 + 1e-6 * std::max(std::abs(a), std::abs(n)));
      ++result.compared;
      if (share <= result.worst) continue;  // written so that a NaN is reported, not skipped
      result.worst = std::isnan(share) ? HUGE_VAL : share;
      result.where = cat("input ", i, " entry ", entry, ": analytic ", a, ", numeric ", n);
    }
  }
  return result;
}

}  // namespace eg
