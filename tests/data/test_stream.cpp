// tests/data/test_stream.cpp - every protocol does what methods.md C says, from nothing but the seed.
#include <algorithm>
#include <map>
#include <set>

#include "tests/data/streams.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("class-subset: disjoint tasks show every class once, with local labels") {
  const auto d = twelve_classes();
  const auto s = make_stream(d, config(Protocol::class_subset, 4, 3));
  std::set<std::int32_t> seen;
  for (std::int64_t t = 0; t < 4; ++t) {
    const Task task = s->task(t);
    CHECK(task.head_labels == std::vector<std::int32_t>{0, 1, 2});
    CHECK(task.head_classes == 3);
    CHECK(task.train.size() == 60);
    CHECK(task.test.size() == 18);
    CHECK_FALSE(task.revisit);
    check_labels(*d, task, task.train);
    check_labels(*d, task, task.test);
    for (const std::int32_t c : task.classes) CHECK(seen.insert(c).second);
  }
  CHECK(seen.size() == 12);
}

TEST_CASE(
    "class-subset: a deck shows every class once per round and marks what comes back; iid never twice in a task") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::class_subset, 13, 4);
  CHECK(contains(make_stream(d, c)->describe(), "deck"));  // automatic: 13 x 4 classes are not there
  c.sampling = ClassSampling::deck;
  const auto s = make_stream(d, c);
  std::set<std::vector<std::int32_t>> orders;
  for (std::int64_t round = 0; round < 4; ++round) {
    std::set<std::int32_t> seen;
    std::vector<std::int32_t> order;
    for (std::int64_t t = 3 * round; t < 3 * round + 3; ++t) {
      const Task task = s->task(t);
      CHECK(task.revisit == (round > 0));
      for (const std::int32_t k : task.classes) seen.insert(k), order.push_back(k);
    }
    CHECK(seen.size() == 12);
    orders.insert(order);
  }
  CHECK(orders.size() == 4);  // shuffled anew
  c.sampling = ClassSampling::iid;
  const auto iid = make_stream(d, c);
  for (std::int64_t t = 0; t < 13; ++t) {
    const auto classes = iid->task(t).classes;
    CHECK(std::set<std::int32_t>(classes.begin(), classes.end()).size() == 4);
  }
  c.sampling = ClassSampling::disjoint;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "at most 3 tasks"));
}

TEST_CASE("class-subset: global labels give every class its own output and a mask for the task") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::class_subset, 4, 3);
  c.global_labels = true;
  const auto s = make_stream(d, c);
  CHECK(s->head_classes() == 12);
  std::set<std::int32_t> used;
  for (std::int64_t t = 0; t < 4; ++t) {
    const Task task = s->task(t);
    check_labels(*d, task, task.train);
    REQUIRE(task.class_mask.size() == 12);
    CHECK(std::count(task.class_mask.begin(), task.class_mask.end(), 1) == 3);
    for (const std::int32_t l : task.head_labels) {
      CHECK(task.class_mask[std::size_t(l)] == 1);
      CHECK(used.insert(l).second);
    }
  }
  c.tasks = 3;  // three classes are left over and get no output
  const auto shorter = make_stream(d, c);
  CHECK(shorter->head_classes() == 9);
  CHECK(shorter->task(2).head_labels == std::vector<std::int32_t>{6, 7, 8});
}

TEST_CASE("class-incremental: tests on all classes so far, trains on the new ones or on all") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::class_incremental, 3, 4);
  const auto s = make_stream(d, c);
  CHECK(s->head_classes() == 12);
  for (std::int64_t t = 0; t < 3; ++t) {
    const Task task = s->task(t);
    CHECK(task.train.size() == 80);
    CHECK(task.test.size() == 24 * (t + 1));
    for (const std::int32_t l : task.train.labels) REQUIRE((l >= 4 * t && l < 4 * (t + 1)));
    CHECK(std::count(task.class_mask.begin(), task.class_mask.end(), 1) == 4 * (t + 1));
  }
  c.accumulate = true;
  const Task all = make_stream(d, c)->task(2);
  CHECK(all.train.size() == 240);
  for (std::int64_t t = 0; t < 3; ++t) {  // every class keeps the label that its own task gave it
    const Task own = s->task(t);
    for (std::size_t k = 0; k < 4; ++k)
      for (std::size_t i = 0; i < all.train.indices.size(); ++i)
        if (d->label(Split::train, all.train.indices[i]) == own.classes[k])
          REQUIRE(all.train.labels[i] == own.head_labels[k]);
  }
  c.tasks = 4;
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "need 16 classes"));
}

TEST_CASE("label-permutation: the same images under other names") {
  const auto d = twelve_classes();
  const auto s = make_stream(d, config(Protocol::label_permutation, 6, 5));
  const Task first = s->task(0);
  std::set<std::vector<std::int32_t>> names;
  for (std::int64_t t = 0; t < 6; ++t) {
    const Task task = s->task(t);
    CHECK(task.train.indices == first.train.indices);
    check_labels(*d, task, task.train);
    check_labels(*d, task, task.test);
    auto sorted = task.head_labels;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == std::vector<std::int32_t>{0, 1, 2, 3, 4});
    names.insert(task.head_labels);
  }
  CHECK(names.size() > 3);
}

TEST_CASE("input-permutation and domain: the same labels, another map of the image") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::input_permutation, 3, 5);
  for (const auto& [name, kind] : std::map<std::string, TransformKind>{{"pixels", TransformKind::permute_pixels},
                                                                       {"in-patch", TransformKind::permute_in_patch},
                                                                       {"patches", TransformKind::permute_patches}}) {
    c.permutation = name;
    const auto s = make_stream(d, c);
    CHECK(s->task(1).transform.kind == kind);
    CHECK(same(s->task(0).train, s->task(2).train));
    CHECK(s->task(0).transform.stream != s->task(1).transform.stream);
  }
  c = config(Protocol::domain, 4, 5);
  const auto amounts = [&](const std::string& domain) {
    c.domain = domain;
    std::vector<double> all;
    for (std::int64_t t = 0; t < 4; ++t) all.push_back(make_stream(d, c)->task(t).transform.amount);
    return all;
  };
  CHECK(amounts("rotation") == std::vector<double>{0, 90, 180, 270});
  CHECK(amounts("blur").back() == doctest::Approx(2.0));
  CHECK(amounts("contrast").back() == doctest::Approx(0.3));
  CHECK(amounts("noise").back() == doctest::Approx(0.3));
  c.domain = "weather";
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), "rotation, hue"));
}

TEST_CASE("random-label: labels say nothing, are redrawn per task, and the test is on the training images") {
  const auto d = twelve_classes();
  const auto s = make_stream(d, config(Protocol::random_label, 3, 4));
  const Task a = s->task(0), b = s->task(1);
  CHECK(a.train.indices == b.train.indices);
  CHECK(a.train.labels != b.train.labels);
  CHECK(same(a.train, a.test));
  CHECK(a.test.split == Split::train);
  std::map<std::int32_t, int> counts;
  for (const std::int32_t l : a.train.labels) ++counts[l];
  CHECK(counts.size() == 4);
  for (const auto& [label, n] : counts) CHECK(n > 5);  // 80 draws of 4: below 6 with probability under 1e-5
}

TEST_CASE("noisy-label: the share of wrong labels falls to zero, and clean test labels stay") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::noisy_label, 3, 10);
  c.label_noise = 0.5;
  const auto s = make_stream(d, c);
  std::vector<double> wrong;
  for (std::int64_t t = 0; t < 3; ++t) {
    const Task task = s->task(t);
    std::map<std::int32_t, std::int32_t> label_of;
    for (std::size_t i = 0; i < task.classes.size(); ++i) label_of[task.classes[i]] = task.head_labels[i];
    int bad = 0;
    for (std::size_t i = 0; i < task.train.indices.size(); ++i)
      bad += task.train.labels[i] != label_of[d->label(Split::train, task.train.indices[i])];
    wrong.push_back(bad / double(task.train.size()));
    check_labels(*d, task, task.test);
  }
  // 200 images: a standard deviation of sqrt(.25 / 200) = 0.035, five of them.
  CHECK(std::abs(wrong[0] - 0.5) < 0.18);
  CHECK(std::abs(wrong[1] - 0.25) < 0.18);
  CHECK(wrong[2] == 0.0);
  c.tasks = 1, c.classes_per_task = 2, c.label_noise = 1.0;  // another class, never the same one again
  const Task swapped = make_stream(d, c)->task(0);
  for (std::size_t i = 0; i < swapped.train.indices.size(); ++i)
    REQUIRE(swapped.classes[std::size_t(1 - swapped.train.labels[i])] ==
            d->label(Split::train, swapped.train.indices[i]));
}

TEST_CASE("streams: a task depends on seed and number only, and the seed changes it") {
  const auto d = twelve_classes();
  for (const std::string& name : protocol_names()) {
    CAPTURE(name);
    if (name == "groups") continue;  // needs folders of classes: test_stream_sets.cpp
    StreamConfig c = config(parse_protocol(name), 3, 4);
    c.train_limit = 30, c.test_limit = 10;
    const auto a = make_stream(d, c), b = make_stream(d, c);
    (void)b->task(2), (void)b->task(0);  // order of asking does not matter
    for (std::int64_t t = 0; t < 3; ++t) {
      CHECK(same(a->task(t).train, b->task(t).train));
      CHECK(same(a->task(t).test, b->task(t).test));
      CHECK(a->task(t).classes == b->task(t).classes);
    }
    c.seed = 77;
    const Task x = a->task(1), y = make_stream(d, c)->task(1);
    CHECK((!same(x.train, y.train) || x.transform.seed != y.transform.seed));
    CHECK(contains(error_text(Kind::usage, [&] { (void)a->task(3); }), "0..2"));
  }
}

TEST_CASE("limits: images are shared out evenly over the classes, validation stays out of training") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::class_subset, 2, 3);
  c.train_limit = 31, c.test_limit = 7, c.validation = 0.25;
  const Task t = make_stream(d, c)->task(0);
  CHECK(t.train.size() == 31);
  CHECK(t.test.size() == 7);
  CHECK(t.validation.size() == 15);
  std::map<std::int32_t, int> counts;
  for (const std::int32_t l : t.train.labels) ++counts[l];
  for (const auto& [label, n] : counts) CHECK((n == 10 || n == 11));
  for (const std::int64_t i : t.validation.indices)
    CHECK(std::find(t.train.indices.begin(), t.train.indices.end(), i) == t.train.indices.end());
  c.train_limit = 2;
  CHECK(make_stream(d, c)->task(0).train.size() == 2);
  c.test_limit = -1;
  error_text(Kind::usage, [&] { make_stream(d, c); });
  CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, config(Protocol::class_subset, 1, 13)); }), "has 12"));
}

TEST_CASE("streams: a billion tasks cost nothing until they are asked for") {
  ProceduralOptions o;
  o.classes = 2'000'000'000;
  const std::shared_ptr<const Dataset> d = make_procedural(o);
  StreamConfig c = config(Protocol::class_subset, 100'000'000, 5);
  c.train_limit = 10, c.test_limit = 10;
  const Task t = make_stream(d, c)->task(99'999'999);
  CHECK(t.train.size() == 10);
  CHECK(contains(make_stream(d, c)->describe(), "disjoint"));
}

TEST_CASE("concatenation: one stream after the other, answers kept to the part's own outputs") {
  const auto d = twelve_classes();
  const auto s = concatenate({make_stream(d, config(Protocol::class_subset, 2, 3)),
                              make_stream(d, config(Protocol::label_permutation, 2, 5))});
  CHECK(s->tasks() == 4);
  CHECK(s->head_classes() == 5);
  const Task early = s->task(1), late = s->task(3);
  CHECK(early.class_mask == std::vector<std::uint8_t>{1, 1, 1, 0, 0});
  CHECK(late.class_mask.empty());
  CHECK(late.index == 3);
  CHECK_FALSE(early.revisit);
  CHECK(late.revisit);  // its classes were, or may have been, in the first part
  error_text(Kind::usage, [&] { (void)s->task(4); });
  CHECK(contains(late.name, "task 3"));
  CHECK(contains(error_text(Kind::usage, [&] { concatenate({}); }), "no streams"));
  CHECK(contains(error_text(Kind::usage,
                            [&] {
                              concatenate({make_stream(d, config(Protocol::class_subset, 1, 3)),
                                           make_stream(twelve_classes(), config(Protocol::class_subset, 1, 3))});
                            }),
                 "one data set"));
}

TEST_CASE("point permutation: a bijection with its inverse, for awkward sizes") {
  for (const std::uint64_t n : {1u, 2u, 3u, 31u, 32u, 33u, 1000u}) {
    const PointPermutation p(n, 5, 6, 7);
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t j = p(i);
      CHECK(j < n);
      CHECK(p.inverse(j) == i);
      seen.insert(j);
    }
    CHECK(seen.size() == n);
  }
}
