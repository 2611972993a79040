// apps/step_results.cpp - see step_results.h.
#include "apps/step_results.h"

#include <cstring>

namespace eg {
namespace {

constexpr std::size_t kAlign = 16;  // so that every value of every type may be read where it lies

double sum_of(const Tensor& t) {
  double total = 0.0;
  for (const double x : t.to_host()) total += x;
  return total;
}

}  // namespace

void StepResults::read(const StepOutputs& outputs, const Tensor& record) {
  std::vector<Tensor> all{record};
  all.insert(all.end(), outputs.losses.begin(), outputs.losses.end());
  all.insert(all.end(), outputs.corrects.begin(), outputs.corrects.end());
  if (!device_.is_host()) {
    DeviceRuntime& r = runtime(device_);
    std::size_t bytes = 0;
    for (const Tensor& t : all) bytes += (t.bytes() + kAlign - 1) / kAlign * kAlign;
    if (!together_ || together_.bytes() < bytes)
      together_ = Tensor::zeros({std::int64_t(bytes)}, DType::u8, device_), host_.resize(bytes);
    std::size_t at = 0;
    for (Tensor& t : all) {
      r.copy_within(static_cast<std::byte*>(together_.data()) + at, t.data(), t.bytes(), {});
      auto storage = std::make_shared<Storage>(kCpu, host_.data() + at, t.bytes(), [] {});
      at += (t.bytes() + kAlign - 1) / kAlign * kAlign;
      t = Tensor::on(std::move(storage), 0, t.shape(), t.dtype());
    }
    r.copy_to_host(host_.data(), together_.data(), bytes, {});
    r.synchronize({});
  }
  std::memcpy(&record_, all.front().data(), sizeof record_);
  loss_ = correct_ = 0.0;
  for (std::size_t i = 0; i < outputs.losses.size(); ++i) loss_ += sum_of(all[1 + i]);
  for (std::size_t i = 0; i < outputs.corrects.size(); ++i) correct_ += sum_of(all[1 + outputs.losses.size() + i]);
}

}  // namespace eg
