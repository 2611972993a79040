// apps/activity_probe.cpp - see activity_probe.h.
#include "apps/activity_probe.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace eg {

ActivityProbe::ActivityProbe(const VitConfig& c, std::int64_t images, Device device)
    : images_(Tensor::zeros({images, c.channels, c.image_size, c.image_size}, DType::u8, kCpu)),
      count_(Tensor::zeros({1}, DType::f64, kCpu)),
      device_(device) {}

void ActivityProbe::offer(const Batch& batch, Collectives& ranks) {
  double& count = *count_.data_as<double>();
  if (count > 0.0) return;
  const std::size_t room = images_.bytes(), image = room / std::size_t(images_.dim(0));
  std::string images(reinterpret_cast<const char*>(batch.images.data()),
                     std::min(room, std::size_t(batch.count) * image));
  if (batch.ranks > 1) {  // each has the next part of the batch
    const std::vector<std::string> parts = ranks.all_gather_bytes(images);
    images.clear();
    for (const std::string& part : parts) images += part;
  }
  std::memcpy(images_.data(), images.data(), std::min(room, images.size()));
  count = double(std::min(room, images.size()) / image);
}

double ActivityProbe::active_share(Vit& model, VitContext context) const {
  const Tensor positive = Tensor::zeros({model.config.hidden()}, DType::f64, device_);
  double entries = 0.0;
  VitProbe probe;
  probe.hidden = [&](int, const Tensor& z) {
    const Tensor flat = z.reshape({z.rows(), z.cols()});
    EVERGRAD_CALL(device_, unit_statistics, UnitStatistics{.z = flat.view(), .positive = positive.view()});
    entries += double(z.size());
  };
  context.probe = &probe;
  const auto n = std::int64_t(*count_.data_as<double>());
  forward(model, images_.slice(0, n).to(device_), context);
  double sum = 0.0;
  for (const double count : positive.to_host()) sum += count;
  return entries > 0.0 ? sum / entries : 0.0;
}

void ActivityProbe::visit_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  visit("probe.images", images_), visit("probe.count", count_);
}

}  // namespace eg
