// tests/autograd/harness.cpp - drawing inputs and comparing results.
#include "tests/autograd/harness.h"

namespace eg::test {

bool is_float_draw(Draw draw) { return draw == Draw::activation || draw == Draw::parameter; }

Hosts draw_inputs(const std::vector<Arg>& args) {
  Hosts all;
  for (std::size_t a = 0; a < args.size(); ++a) {
    const Arg& arg = args[a];
    const Key k = key(7, "tests", "inputs", std::uint32_t(a));
    Host h{arg.shape, {}};
    if (arg.draw == Draw::absent) {
      all.push_back({});
      continue;
    }
    h.v.resize(std::size_t(arg.shape.size()));
    for (std::size_t i = 0; i < h.v.size(); ++i) {
      double& v = h.v[i];
      switch (arg.draw) {
        case Draw::absent: break;
        case Draw::activation:
        case Draw::parameter:
        case Draw::statistic: v = arg.offset + k.normal(i); break;
        case Draw::positive: v = 0.5 + k.uniform(i); break;
        case Draw::rows_of_one: v = 0.5 / double(arg.shape.cols()); break;
        case Draw::mask: v = k.below(i, 2) ? 2.0 : 0.0; break;
        case Draw::labels: v = double(k.below(i, std::uint32_t(arg.limit))); break;
        case Draw::crop:
          v = i % 3 == 2 ? double(k.below(i, 2)) : double(k.below(i, std::uint32_t(arg.limit + 1))) - 1;
          break;
        case Draw::bytes: v = double(k.below(i, 256)); break;
        case Draw::allowed: v = std::int64_t(i) == arg.limit ? 0.0 : 1.0; break;
      }
      if (arg.draw != Draw::rows_of_one) v = double(bf16(v));
    }
    if (arg.draw == Draw::rows_of_one) {  // half the weight on one class; the rows sum to 1 only up to bf16, see below
      const auto cols = std::size_t(arg.shape.cols());
      for (std::size_t row = 0; row < h.v.size() / cols; ++row) {
        double rest = 1.0;
        for (std::size_t i = 0; i < cols; ++i) rest -= h.v[row * cols + i] = double(float(h.v[row * cols + i]));
        h.v[row * cols + k.below(row, std::uint32_t(cols))] += rest;
      }
      for (double& v : h.v) v = double(float(v));
    }
    all.push_back(std::move(h));
  }
  return all;
}

Tensor place(const Arg& arg, const Host& value, Device device, DType dtype) {
  const std::span<const double> v(value.v);
  switch (arg.draw) {
    case Draw::absent: return {};
    case Draw::activation:
    case Draw::parameter: return Tensor::from(v, value.shape, dtype, device);
    case Draw::statistic:
    case Draw::positive:
    case Draw::rows_of_one:
    case Draw::mask: return Tensor::from(v, value.shape, device.statistic(), device);
    case Draw::labels:
    case Draw::crop: return Tensor::from(v, value.shape, DType::i32, device);
    case Draw::bytes:
    case Draw::allowed: return Tensor::from(v, value.shape, DType::u8, device);
  }
  return {};
}

Host perturbed(const Host& value, double u, std::uint32_t draw) {
  Host h = value;
  const Key k = key(11, "tests", "perturbed", draw);
  for (std::size_t i = 0; i < h.v.size(); ++i) h.v[i] *= 1.0 + (k.below(i, 2) ? u : -u);
  return h;
}

double norm(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

std::vector<std::uint8_t> bytes_of(const Tensor& t) {
  std::vector<std::uint8_t> bytes(t.bytes());
  if (!bytes.empty()) runtime(t.device()).copy_to_host(bytes.data(), t.data(), bytes.size(), {});
  runtime(t.device()).synchronize({});
  return bytes;
}

}  // namespace eg::test
