// data/computed.cpp - see computed.h.
#include "data/computed.h"

#include <utility>

#include "engine/error.h"

namespace eg {
namespace {

class Computed final : public Dataset {
 public:
  Computed(const ComputedOptions& o, ComputedImage image) : o_(o), image_(std::move(image)) {}
  std::string name() const override { return o_.name; }
  int classes() const override { return o_.classes; }
  std::string class_name(int c) const override { return check_class(c), cat(c); }
  std::int64_t size(Split split) const override { return split == Split::train ? o_.train : o_.test; }
  std::int32_t label(Split split, std::int64_t i) const override {
    check_index(split, i);
    return std::int32_t(i % o_.classes);
  }
  std::vector<std::int64_t> indices_of(Split split, int c) const override {
    check_class(c);
    std::vector<std::int64_t> all;
    for (std::int64_t i = c; i < size(split); i += o_.classes) all.push_back(i);
    return all;
  }
  ImageFormat native() const override { return o_.native; }
  void image(Split split, std::int64_t i, ImageFormat format, std::uint8_t* out) const override {
    check_format(format);
    image_(split, i, label(split, i), format, out);
  }

 private:
  ComputedOptions o_;
  ComputedImage image_;
};

}  // namespace

std::shared_ptr<const Dataset> computed_dataset(const ComputedOptions& o, ComputedImage image) {
  check(!o.name.empty() && o.classes >= 1 && o.train >= 1 && o.test >= 1 && image, Kind::usage, [&] {
    return cat("computed_dataset '", o.name, "' with ", o.classes, " classes, ", o.train, " training and ", o.test,
               " test images, ", image ? "a" : "no",
               " function: it needs a name, a function, and at least one of each");
  });
  check_format(o.native);
  return std::make_shared<Computed>(o, std::move(image));
}

}  // namespace eg
