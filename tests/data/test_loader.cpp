// tests/data/test_loader.cpp - the order of batches, resuming, workers, and what happens when one fails.
#include "data/loader.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;

namespace {

std::shared_ptr<const Dataset> images() {
  ProceduralOptions o;
  o.classes = 3, o.train_per_class = 17, o.test_per_class = 4;
  return std::shared_ptr<const Dataset>(make_procedural(o));
}

SampleSet everything(const Dataset& d) { return whole_dataset(d).train; }

/// All a consumer can see of a batch.
std::string print(const Batch& b) {
  std::string s = cat(b.epoch, ' ', b.index, ' ', b.first_sample, ' ', b.count, ' ');
  s.append(reinterpret_cast<const char*>(b.images.data()), b.images.size());
  for (const auto v : b.labels) s += cat(v, ',');
  for (const auto v : b.crop) s += cat(v, ',');
  for (const auto v : b.soft_labels) s += cat(v, ',');
  for (const auto v : b.positions) s += cat(v, ',');
  return s;
}

LoaderConfig plain(std::int64_t batch, int workers) {
  LoaderConfig c;
  c.format = {3, 16}, c.batch = batch, c.workers = workers;
  return c;
}

std::vector<std::string> run(Loader& loader, int epochs) {
  std::vector<std::string> all;
  for (int e = 0; e < epochs; ++e)
    while (const Batch* b = loader.next()) all.push_back(print(*b));
  return all;
}

/// Fails at one image, or at all of them.
class Broken : public Dataset {
 public:
  explicit Broken(std::shared_ptr<const Dataset> d) : d_(std::move(d)) {}
  std::string name() const override { return "broken"; }
  int classes() const override { return d_->classes(); }
  std::string class_name(int c) const override { return d_->class_name(c); }
  std::int64_t size(Split s) const override { return d_->size(s); }
  std::int32_t label(Split s, std::int64_t i) const override { return d_->label(s, i); }
  std::vector<std::int64_t> indices_of(Split s, int c) const override { return d_->indices_of(s, c); }
  void image(Split s, std::int64_t i, ImageFormat f, std::uint8_t* out) const override {
    if (broken && (only < 0 || i == only)) fail(Kind::format, cat("image ", i, " is broken"));
    d_->image(s, i, f, out);
  }
  ImageFormat native() const override { return d_->native(); }
  mutable std::atomic<bool> broken{true};
  std::int64_t only = -1;

 private:
  std::shared_ptr<const Dataset> d_;
};

}  // namespace

TEST_CASE("loader: every image once per epoch, the last partial batch included, in an order that the seed decides") {
  const auto d = images();
  LoaderConfig c = plain(8, 1);
  Loader loader(d, everything(*d), {}, c);
  CHECK(loader.samples() == 51);
  CHECK(loader.batches_per_epoch() == 7);
  std::vector<std::int64_t> first, second;
  for (auto* order : {&first, &second}) {
    std::int64_t batches = 0;
    while (const Batch* b = loader.next()) {
      CHECK(b->count == (batches == 6 ? 3 : 8));
      CHECK(b->index == batches++);
      for (std::size_t i = 0; i < b->positions.size(); ++i) {
        order->push_back(b->positions[i]);
        const auto image = pixels(*d, Split::train, b->positions[i], {3, 16});
        CHECK(std::memcmp(image.data(), b->images.data() + i * image.size(), image.size()) == 0);
        CHECK(b->labels[i] == d->label(Split::train, b->positions[i]));
      }
    }
    CHECK(batches == 7);
    CHECK(std::set<std::int64_t>(order->begin(), order->end()).size() == 51);
  }
  CHECK(first != second);
  c.seed = 2;
  Loader other(d, everything(*d), {}, c);
  CHECK(other.next()->positions != std::vector<std::int64_t>(first.begin(), first.begin() + 8));
  c.shuffle = false;
  Loader in_order(d, everything(*d), {}, c);
  CHECK(in_order.next()->positions == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("loader: the batch ahead is the one that comes next, over an epoch's end too") {
  const auto d = images();
  LoaderConfig c = plain(8, 1);
  c.workers = 2, c.prefetch = 2, c.epochs = 2;
  Loader loader(d, everything(*d), {}, c);
  CHECK(loader.ahead() == nullptr);  // nothing has been asked for yet
  std::set<std::uint64_t> serials;
  int batches = 0;
  const Batch* announced = nullptr;
  for (int epoch = 0; epoch < 2; ++epoch)
    while (const Batch* b = loader.next()) {
      if (announced) CHECK(b == announced);
      CHECK(serials.insert(b->serial).second);
      const bool last = ++batches == 14;
      announced = loader.ahead();
      for (int i = 0; i < 2000 && !announced && !last; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1)), announced = loader.ahead();
      CHECK((announced == nullptr) == last);
    }
  CHECK(batches == 14);
  c.workers = 0;
  Loader alone(d, everything(*d), {}, c);
  alone.next();
  CHECK(alone.ahead() == nullptr);
}

TEST_CASE("loader: workers change nothing, with every augmentation on") {
  const auto d = images();
  std::vector<std::string> expected;
  for (const int workers : {0, 1, 2, 4}) {
    LoaderConfig c = plain(8, workers);
    c.epochs = 2;
    c.augment = parse_augment("crop-flip", 16);
    c.augment.randaugment_ops = 2, c.augment.mixup = 0.4, c.augment.cutmix = 1.0;
    c.soft_classes = 3;
    Loader loader(d, everything(*d), {}, c);
    const auto got = run(loader, 2);
    CHECK(got.size() == 14);
    if (expected.empty()) expected = got;
    CHECK(got == expected);
    CHECK(loader.next() == nullptr);  // two epochs were asked for
  }
}

TEST_CASE("loader: may begin at any batch") {
  const auto d = images();
  for (const int workers : {0, 2}) {
    LoaderConfig c = plain(8, workers);
    c.augment = parse_augment("crop-flip", 16);
    Loader whole(d, everything(*d), {}, c);
    const auto all = run(whole, 3);
    for (const int start : {0, 1, 6, 7, 13, 20}) {
      Loader later(d, everything(*d), {}, c);
      later.seek(start / 7, start % 7);
      const auto rest = run(later, 3 - start / 7);
      CHECK(rest == std::vector<std::string>(all.begin() + start, all.end()));
    }
    Loader end(d, everything(*d), {}, c);
    end.seek(0, 7);
    CHECK(end.next() == nullptr);
    CHECK(print(*end.next()) == all[7]);
    end.seek(0, 3);  // backwards, while workers run ahead
    CHECK(print(*end.next()) == all[3]);
  }
}

TEST_CASE("loader: ranks share every batch without overlap") {
  const auto d = images();
  LoaderConfig c = plain(8, 1);
  Loader whole(d, everything(*d), {}, c);
  c.ranks = 3;
  std::vector<std::unique_ptr<Loader>> parts;
  for (c.rank = 0; c.rank < 3; ++c.rank) parts.push_back(std::make_unique<Loader>(d, everything(*d), Transform{}, c));
  while (const Batch* b = whole.next()) {
    std::vector<std::int64_t> joined;
    for (auto& part : parts) {
      const Batch* p = part->next();
      REQUIRE(p);
      CHECK(p->global_count == b->count);
      joined.insert(joined.end(), p->positions.begin(), p->positions.end());
    }
    CHECK(joined == b->positions);
  }
}

TEST_CASE("loader: what a worker throws reaches the caller, and seek makes it usable again") {
  const auto d = std::make_shared<Broken>(images());
  for (const int workers : {0, 1, 3}) {
    d->broken = true;
    Loader loader(d, everything(*d), {}, plain(8, workers));
    CHECK(contains(error_text(Kind::format, [&] { (void)loader.next(); }), "is broken"));
    d->broken = false;
    loader.seek(0, 0);
    REQUIRE(loader.next());
    CHECK(loader.next()->index == 1);
  }
}

TEST_CASE("loader: dies at once, whatever its workers are doing") {
  const auto d = images();
  for (int i = 0; i < 30; ++i) {
    Loader loader(d, everything(*d), {}, plain(1 + i % 9, i % 4));
    if (i % 3) (void)loader.next();
    if (i % 5 == 0) loader.seek(3, 1);
  }
}

TEST_CASE("loader: waiting is measured, memory is bounded") {
  const auto d = images();
  Loader loader(d, everything(*d), {}, plain(8, 0));
  CHECK(loader.wait_seconds() == 0.0);
  (void)run(loader, 1);
  CHECK(loader.wait_seconds() > 0.0);
  Loader ahead(d, everything(*d), {}, plain(8, 2));
  (void)run(ahead, 2);
  CHECK(ahead.bytes() < 16 * 8 * 3 * 16 * 16);  // a handful of batches
}

TEST_CASE("loader: values out of range are refused") {
  const auto d = images();
  error_text(Kind::usage, [&] { Loader(d, SampleSet{}, {}, plain(8, 1)); });
  error_text(Kind::usage, [&] { Loader(d, everything(*d), {}, plain(0, 1)); });
  LoaderConfig mixing = plain(8, 1);
  mixing.augment.mixup = 1.0;
  error_text(Kind::usage, [&] { Loader(d, everything(*d), {}, mixing); });
  LoaderConfig rank = plain(8, 1);
  rank.rank = 1;
  error_text(Kind::usage, [&] { Loader(d, everything(*d), {}, rank); });
  error_text(Kind::usage, [&] { Loader(d, everything(*d), {}, plain(8, -1)); });
  Loader loader(d, everything(*d), {}, plain(8, 1));
  for (const auto& [epoch, batch] : {std::pair<std::int64_t, std::int64_t>(-1, 0), {0, -1}, {0, 8}, {INT64_MAX, 0}})
    CHECK(contains(error_text(Kind::usage, [&, e = epoch, n = batch] { loader.seek(e, n); }), "an epoch has 7"));
}

TEST_CASE("loader: what was ready before a failure still comes, in order, and after it nothing but null") {
  const auto d = std::make_shared<Broken>(images());
  d->only = 33;
  for (const int workers : {0, 1, 4}) {
    LoaderConfig c = plain(8, workers);
    c.shuffle = false;
    Loader loader(d, everything(*d), {}, c);
    for (std::int64_t i = 0; i < 4; ++i) {
      const Batch* const b = loader.next();
      REQUIRE(b);
      CHECK(b->index == i);
    }
    CHECK(contains(error_text(Kind::format, [&] { (void)loader.next(); }), "image 33 is broken"));
    CHECK(loader.next() == nullptr);
    CHECK(loader.next() == nullptr);
    loader.seek(0, 5);
    REQUIRE(loader.next());
  }
}

TEST_CASE("loader: a last batch smaller than the ranks leaves some of them without images") {
  const auto d = images();
  LoaderConfig c = plain(10, 1);  // 51 images: the last batch has one
  c.ranks = 4;
  std::int64_t total = 0;
  for (c.rank = 0; c.rank < 4; ++c.rank) {
    Loader loader(d, everything(*d), {}, c);
    loader.seek(0, 5);
    const Batch* const b = loader.next();
    REQUIRE(b);
    CHECK(b->global_count == 1);
    CHECK(b->images.size() == std::size_t(b->count * c.format.bytes()));
    total += b->count;
  }
  CHECK(total == 1);
}

TEST_CASE("loader: mixed batches carry soft labels that sum to one and lean to the hard label") {
  const auto d = images();
  LoaderConfig c = plain(8, 2);
  c.augment.mixup = 1.0, c.augment.cutmix = 1.0, c.soft_classes = 5;
  Loader loader(d, everything(*d), {}, c);
  int mixed = 0;
  while (const Batch* b = loader.next())
    for (std::int64_t i = 0; i < b->count; ++i) {
      const float* row = b->soft_labels.data() + i * 5;
      CHECK(row[0] + row[1] + row[2] + row[3] + row[4] == doctest::Approx(1.0));
      CHECK(row[b->labels[std::size_t(i)]] >= 0.5f);
      CHECK(row[3] + row[4] == 0.0f);  // outputs of no class in the task
      mixed += row[b->labels[std::size_t(i)]] < 1.0f;
    }
  CHECK(mixed > 10);
}

TEST_CASE("loader: what happens to an image does not depend on the batch size") {
  const auto d = images();
  std::vector<std::string> reference;
  for (const std::int64_t batch : {1, 7, 51}) {
    LoaderConfig c = plain(batch, 2);
    c.augment = parse_augment("crop-flip", 16);
    c.augment.randaugment_ops = 1, c.augment.mixup = 0.4, c.augment.cutmix = 1.0;
    c.soft_classes = 3;
    Loader loader(d, everything(*d), {}, c);
    std::vector<std::string> single;
    while (const Batch* b = loader.next())
      for (std::int64_t i = 0; i < b->count; ++i) {
        std::string s = cat(b->positions[std::size_t(i)], ' ', b->first_sample + std::uint64_t(i));
        s.append(reinterpret_cast<const char*>(b->images.data()) + i * c.format.bytes(), std::size_t(c.format.bytes()));
        for (int k = 0; k < 3; ++k) s += cat(' ', b->soft_labels[std::size_t(3 * i + k)]);
        single.push_back(s);
      }
    if (reference.empty()) reference = single;
    CHECK(single.size() == 51);
    CHECK((single == reference));
  }
}
