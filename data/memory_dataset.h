// data/memory_dataset.h - images of one fixed size that lie in memory: CIFAR and IDX (private to data/).
#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/pixels.h"
#include "engine/error.h"

namespace eg::detail {

/// One split as it was read: `bytes` with an image every `stride` bytes, the first at `offset`.
struct MemorySplit {
  std::string bytes;
  std::size_t offset = 0, stride = 0;
  std::vector<std::int32_t> labels;
  std::vector<std::vector<std::int64_t>> of_class;
  std::unique_ptr<ImageCache> cache;  // resized images
};

class MemoryDataset final : public Dataset {
 public:
  MemoryDataset(std::string name, std::vector<std::string> class_names, Image shape, std::array<MemorySplit, 2> splits,
                std::int64_t cache_bytes)
      : name_(std::move(name)), class_names_(std::move(class_names)), shape_(shape), splits_(std::move(splits)) {
    for (MemorySplit& s : splits_) {
      s.of_class = group_by_label(s.labels, classes());
      s.cache = std::make_unique<ImageCache>(std::int64_t(s.labels.size()), cache_bytes / 2);
    }
    warn_of_empty_classes(splits_[0].of_class);
  }
  std::string name() const override { return name_; }
  int classes() const override { return int(class_names_.size()); }
  std::string class_name(int c) const override {
    check_class(c);
    return class_names_[std::size_t(c)];
  }
  std::int64_t size(Split split) const override { return std::int64_t(part(split).labels.size()); }
  std::int32_t label(Split split, std::int64_t i) const override {
    check_index(split, i);
    return part(split).labels[std::size_t(i)];
  }
  std::vector<std::int64_t> indices_of(Split split, int c) const override {
    check_class(c);
    return part(split).of_class[std::size_t(c)];
  }
  void image(Split split, std::int64_t i, ImageFormat format, std::uint8_t* out) const override {
    check_index(split, i);
    const MemorySplit& s = part(split);
    Image view = shape_;
    view.pixels = reinterpret_cast<const std::uint8_t*>(s.bytes.data()) + s.offset + std::size_t(i) * s.stride;
    const bool resized = view.height != format.size || view.width != format.size;
    if (resized && s.cache->get(i, format, out)) return;
    convert(view, format, out);
    if (resized) s.cache->put(i, format, out);
  }
  ImageFormat native() const override { return {shape_.channels, std::max(shape_.height, shape_.width)}; }

 private:
  const MemorySplit& part(Split split) const { return splits_[std::size_t(split)]; }
  std::string name_;
  std::vector<std::string> class_names_;
  Image shape_;
  std::array<MemorySplit, 2> splits_;
};

}  // namespace eg::detail
