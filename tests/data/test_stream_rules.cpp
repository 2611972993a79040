// tests/data/test_stream_rules.cpp - what comes back, what is held out, and what a stream refuses.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "tests/data/streams.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("class-subset: a deck whose classes do not divide evenly never deals one twice in a task") {
  const auto d = twelve_classes();
  const auto s = make_stream(d, config(Protocol::class_subset, 40, 5));  // 2 tasks a pass, 2 classes wait
  std::set<std::int32_t> seen;
  for (std::int64_t t = 0; t < 40; t += 2) {
    std::set<std::int32_t> pass;
    for (const auto& task : {s->task(t), s->task(t + 1)}) pass.insert(task.classes.begin(), task.classes.end());
    CHECK(pass.size() == 10);
    seen.insert(pass.begin(), pass.end());
  }
  CHECK(seen.size() == 12);
}

TEST_CASE("streams: a class that comes back brings the same images, and its validation images stay out") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::class_subset, 8, 6);
  c.validation = 0.3, c.sampling = ClassSampling::deck;
  const auto s = make_stream(d, c);
  std::map<std::int32_t, std::set<std::int64_t>> trained, held;
  for (std::int64_t t = 0; t < 8; ++t) {
    const Task task = s->task(t);
    std::map<std::int32_t, std::set<std::int64_t>> now;
    for (const std::int64_t i : task.train.indices) now[d->label(Split::train, i)].insert(i);
    for (const auto& [k, images] : now) CHECK(trained.emplace(k, images).first->second == images);
    for (const std::int64_t i : task.validation.indices) held[d->label(Split::train, i)].insert(i);
  }
  for (const auto& [k, images] : held) {
    CHECK(images.size() == 6);
    for (const std::int64_t i : images) CHECK(trained[k].count(i) == 0);
  }
}

TEST_CASE("random-label: a test limit takes a spread of the training images with their labels") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::random_label, 2, 4);
  c.test_limit = 7;
  const Task t = make_stream(d, c)->task(1);
  CHECK(t.test.size() == 7);
  std::map<std::int64_t, std::int32_t> label_of;
  for (std::size_t i = 0; i < t.train.indices.size(); ++i) label_of[t.train.indices[i]] = t.train.labels[i];
  std::set<std::int64_t> classes;
  for (std::size_t i = 0; i < 7; ++i) {
    CHECK(t.test.labels[i] == label_of.at(t.test.indices[i]));
    classes.insert(d->label(Split::train, t.test.indices[i]));
  }
  CHECK(classes.size() == 4);
}

TEST_CASE("domain: inversion alternates, hue turns, and one task alone is unchanged") {
  const auto d = twelve_classes();
  StreamConfig c = config(Protocol::domain, 4, 0);
  c.domain = "inversion";
  const auto s = make_stream(d, c);
  CHECK(s->head_classes() == 12);  // 0 classes per task: all
  CHECK(s->task(0).transform.kind == TransformKind::none);
  CHECK(s->task(1).transform.kind == TransformKind::invert);
  CHECK(same(s->task(0).test, s->task(1).test));
  c.domain = "hue";
  CHECK(make_stream(d, c)->task(3).transform.amount == 270.0);
  c.domain = "blur", c.tasks = 1;
  CHECK(make_stream(d, c)->task(0).transform.amount == 0.0);
}

TEST_CASE("streams: numbers and names that make no sense are refused before any image is read") {
  const auto d = twelve_classes();
  const auto refused = [&](const std::function<void(StreamConfig&)>& change, const std::string& words) {
    StreamConfig c = config(Protocol::class_subset, 2, 3);
    change(c);
    CHECK(contains(error_text(Kind::usage, [&] { make_stream(d, c); }), words));
  };
  refused([](auto& c) { c.tasks = 0; }, "0 tasks");
  refused([](auto& c) { c.classes_per_task = 0; }, "at least 1 class");
  refused([](auto& c) { c.classes_per_task = -1; }, "-1 classes");
  refused([](auto& c) { c.train_limit = -5; }, "-5");
  refused([](auto& c) { c.validation = 0.95; }, "0..0.9");
  refused([](auto& c) { c.validation = std::nan(""); }, "0..0.9");
  refused([](auto& c) { c.label_noise = 1.5; }, "0..1");
  refused([](auto& c) { c.protocol = Protocol::input_permutation, c.permutation = "rows"; }, "pixels, in-patch");
  CHECK(contains(error_text(Kind::usage, [] { parse_protocol("permuted"); }), "class-incremental"));
  CHECK(contains(error_text(Kind::usage, [] { parse_class_sampling("random"); }), "deck"));
  for (const std::string& name : protocol_names()) CHECK(to_string(parse_protocol(name)) == name);
}

TEST_CASE("whole data set: one task with every image under its own label, or the first classes of it") {
  const auto d = twelve_classes();
  const Task t = whole_dataset(*d, 0, 0, 0, 0.25);
  CHECK(t.train.size() == 12 * 15);
  CHECK(t.validation.size() == 12 * 5);
  CHECK(t.test.size() == 12 * 6);
  for (const SampleSet* set : {&t.train, &t.validation, &t.test}) check_labels(*d, t, *set);
  const Task some = whole_dataset(*d, 5, 33, 4);
  CHECK(some.head_classes == 5);
  CHECK(some.train.size() == 33);
  CHECK(some.test.size() == 4);
  check_labels(*d, some, some.train);
  CHECK(contains(error_text(Kind::usage, [&] { whole_dataset(*d, 13); }), "has 12"));
  error_text(Kind::usage, [&] { whole_dataset(*d, 0, 0, 0, 1.0); });
}
