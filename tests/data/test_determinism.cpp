// tests/data/test_determinism.cpp - what must not depend on threads, ranks, or the task in which a class comes.
#include <map>

#include "data/loader.h"
#include "engine/parallel.h"
#include "tests/data/streams.h"

using namespace eg;
using namespace eg::test;

namespace {

/// What two epochs make of every sample, by its global number: pixels, crop, labels, position.
std::map<std::uint64_t, std::string> by_number(const std::shared_ptr<const Dataset>& d, const LoaderConfig& c) {
  std::map<std::uint64_t, std::string> all;
  Loader loader(d, whole_dataset(*d).train, {}, c);
  const auto bytes = std::size_t(c.format.bytes()), classes = std::size_t(c.soft_classes);
  for (int epoch = 0; epoch < 2; ++epoch)
    while (const Batch* b = loader.next())
      for (std::size_t i = 0; i < std::size_t(b->count); ++i) {
        std::string s(reinterpret_cast<const char*>(b->images.data()) + i * bytes, bytes);
        s += cat(b->positions[i], ' ', b->labels[i], ' ');
        for (std::size_t k = 3 * i; k < 3 * i + 3 && !b->crop.empty(); ++k) s += cat(b->crop[k], ' ');
        for (std::size_t k = classes * i; k < classes * (i + 1); ++k) s += cat(b->soft_labels[k], ' ');
        REQUIRE(all.emplace(b->first_sample + i, s).second);
      }
  return all;
}

}  // namespace

TEST_CASE("loader: what becomes of an image depends on task and number alone, not on batch size, workers or ranks") {
  const auto d = twelve_classes();
  for (const bool mixes : {false, true}) {
    LoaderConfig c;
    c.format = {3, 16}, c.batch = 50, c.workers = 2;
    c.augment = parse_augment("crop-flip", 16);
    c.augment.randaugment_ops = 2;
    if (mixes) c.augment.mixup = 0.4, c.augment.cutmix = 1.0, c.soft_classes = 12;
    const auto expected = by_number(d, c);
    CHECK(expected.size() == 480);
    c.batch = 7, c.workers = 4;
    CHECK((by_number(d, c) == expected));
    c.batch = 50, c.ranks = 3;
    std::map<std::uint64_t, std::string> joined;
    for (c.rank = 0; c.rank < 3; ++c.rank) joined.merge(by_number(d, c));
    CHECK((joined == expected));
    c.rank = 0, c.ranks = 1, c.task = 1;
    CHECK((by_number(d, c) != expected));
  }
}

TEST_CASE("channel statistics: the same bits for any number of threads") {
  const auto d = twelve_classes();  // 240 images: four chunks
  const SampleSet all = whole_dataset(*d).train;
  const int before = num_threads();
  set_num_threads(1);
  const ChannelStats alone = channel_stats(*d, all, {3, 8});
  set_num_threads(3);
  const ChannelStats shared = channel_stats(*d, all, {3, 8});
  set_num_threads(before);
  CHECK(alone.mean == shared.mean);
  CHECK(alone.stddev == shared.stddev);
}

TEST_CASE("in-patch permutation: one permutation for every patch of the image") {
  Transform t;
  t.kind = TransformKind::permute_in_patch, t.patch = 4, t.seed = 3;
  std::vector<std::uint8_t> image(256), scratch;
  for (std::size_t i = 0; i < 256; ++i) image[i] = std::uint8_t(i / 16 % 4 * 4 + i % 4);  // all patches alike
  PreparedTransform(t, {1, 16}).apply(image.data(), 0, scratch);
  for (std::size_t i = 0; i < 256; ++i) CHECK(image[i] == image[i / 16 % 4 * 16 + i % 4]);
}

TEST_CASE("class-subset: a class keeps its global output whenever it comes back") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::class_subset, 20, 3);
  c.global_labels = true, c.sampling = ClassSampling::deck;
  const auto s = make_stream(d, c);
  CHECK(s->head_classes() == 12);
  std::map<std::int32_t, std::int32_t> output_of, class_of;
  for (std::int64_t t = 0; t < 20; ++t) {
    const Task task = s->task(t);
    check_labels(*d, task, task.train);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(output_of.emplace(task.classes[i], task.head_labels[i]).first->second == task.head_labels[i]);
      CHECK(class_of.emplace(task.head_labels[i], task.classes[i]).first->second == task.classes[i]);
    }
  }
  CHECK(class_of.size() == 12);
}

TEST_CASE("class-incremental: a class has the same output in training and test, in its own task and in later ones") {
  const auto d = twelve_classes();
  const auto s = make_stream(d, config(Protocol::class_incremental, 3, 4));
  std::map<std::int32_t, std::int32_t> output_of;
  for (std::int64_t t = 0; t < 3; ++t) {
    const Task task = s->task(t);
    for (std::size_t i = 0; i < 4; ++i) CHECK(output_of.emplace(task.classes[i], task.head_labels[i]).second);
    for (const SampleSet* set : {&task.train, &task.test})
      for (std::size_t i = 0; i < set->labels.size(); ++i)
        REQUIRE(set->labels[i] == output_of.at(d->label(set->split, set->indices[i])));
  }
}

TEST_CASE("noisy-label: a wrong label is any of the others, and is decided once for an image") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::noisy_label, 3, 4);
  c.label_noise = 1.0;  // then 0.5, then 0
  const auto s = make_stream(d, c);
  const Task all = s->task(0), some = s->task(1);
  REQUIRE(all.train.indices == some.train.indices);
  std::map<std::int32_t, std::int32_t> output_of;
  for (std::size_t i = 0; i < 4; ++i) output_of[all.classes[i]] = all.head_labels[i];
  std::map<std::int32_t, int> shifts;
  int wrong = 0;
  for (std::size_t i = 0; i < all.train.indices.size(); ++i) {
    const std::int32_t own = output_of.at(d->label(Split::train, all.train.indices[i]));
    ++shifts[(all.train.labels[i] - own + 4) % 4];
    if (some.train.labels[i] == own) continue;
    ++wrong;
    CHECK(some.train.labels[i] == all.train.labels[i]);
  }
  CHECK(shifts.count(0) == 0);
  CHECK(shifts.size() == 3);
  for (const auto& [shift, n] : shifts) CHECK(n > 9);  // 80 draws of 3: mean 26.7, four standard deviations of 4.2
  CHECK(std::abs(wrong - 40) < 23);                    // standard deviation 4.5, five of them
}
