// tests/data/test_computed.cpp - a data set that is a function, its batches as tensors, and what is refused.
#include <doctest/doctest.h>

#include "data/batch_tensors.h"
#include "data/computed.h"
#include "engine/error.h"

using namespace eg;

namespace {

/// Pixel p of image i: a number that names split, image, label and pixel.
void numbered(Split split, std::int64_t i, int label, ImageFormat f, std::uint8_t* out) {
  for (std::int64_t p = 0; p < f.bytes(); ++p)
    out[p] = std::uint8_t(100 * int(split) + 16 * label + 3 * int(i) + int(p) % 3);
}
const ComputedOptions kSmall{.name = "numbered", .classes = 3, .train = 8, .test = 4, .native = {1, 2}};

}  // namespace

TEST_CASE("computed data set: classes take turns, and the function gets what was asked for") {
  const auto data = computed_dataset(kSmall, numbered);
  CHECK(data->name() == "numbered");
  CHECK(data->size(Split::train) == 8);
  CHECK(data->size(Split::test) == 4);
  CHECK(data->native() == ImageFormat{1, 2});
  CHECK(data->indices_of(Split::train, 1) == std::vector<std::int64_t>{1, 4, 7});
  CHECK(data->indices_of(Split::test, 1) == std::vector<std::int64_t>{1});
  CHECK(data->label(Split::train, 7) == 1);
  CHECK(data->class_name(2) == "2");
  std::vector<std::uint8_t> pixels(12);
  data->image(Split::test, 2, {3, 2}, pixels.data());
  for (int p = 0; p < 12; ++p) CHECK(pixels[std::size_t(p)] == 100 + 16 * 2 + 3 * 2 + p % 3);
}

TEST_CASE("computed data set: what is missing is named") {
  const auto refused = [](ComputedOptions o, ComputedImage image) {
    try {
      computed_dataset(o, std::move(image));
    } catch (const Error& e) {
      CHECK(e.kind == Kind::usage);
      return std::string(e.what());
    }
    return std::string("no error");
  };
  ComputedOptions o = kSmall;
  CHECK(refused(o, {}).find("no function") != std::string::npos);
  o.classes = 0;
  CHECK(refused(o, numbered).find("0 classes") != std::string::npos);
  o = kSmall, o.test = 0;
  CHECK(refused(o, numbered).find("0 test images") != std::string::npos);
  o = kSmall, o.native.channels = 2;
  CHECK(refused(o, numbered) != "no error");
  CHECK_THROWS_AS(computed_dataset(kSmall, numbered)->label(Split::test, 4), Error);
  CHECK_THROWS_AS(computed_dataset(kSmall, numbered)->indices_of(Split::test, 3), Error);
}

TEST_CASE("batch tensors: the loader's numbers, in the shapes that a forward pass takes") {
  const std::shared_ptr<const Dataset> data = computed_dataset(kSmall, numbered);
  const Task task = whole_dataset(*data);
  Loader loader(data, task.train, task.transform, {.format = data->native(), .batch = 5, .shuffle = false});
  const BatchTensors t = tensors_of(*loader.next());
  CHECK(t.images.shape() == Shape{5, 1, 2, 2});
  CHECK(t.images.to_host()[4 * 4 + 2] == 16 * 1 + 3 * 4 + 2);       // image 4 has label 1
  CHECK(t.labels.to_host() == std::vector<double>{0, 0, 0, 1, 1});  // class by class: 0 3 6, 1 4
  CHECK_FALSE(t.crop);
  Loader cropped(data, task.train, task.transform,
                 {.format = data->native(), .batch = 5, .augment = parse_augment("crop", 2)});
  CHECK(tensors_of(*cropped.next()).crop.shape() == Shape{5, 3});
  CHECK(channel_tensor({0.5, 0.25}).to_host() == std::vector<double>{0.5, 0.25});
  CHECK(channel_tensor({0.5}, kReference).dtype() == DType::f64);
}
