// tests/data/streams.h - a small data set and what every task of a stream over it must keep.
#pragma once
#include <map>

#include "data/stream.h"
#include "tests/data/files.h"

namespace eg::test {

inline std::shared_ptr<const Dataset> twelve_classes() {
  ProceduralOptions o;
  o.classes = 12, o.train_per_class = 20, o.test_per_class = 6;
  return std::shared_ptr<const Dataset>(make_procedural(o));
}

inline StreamConfig config(Protocol p, std::int64_t tasks, int classes) {
  StreamConfig c;
  c.protocol = p, c.tasks = tasks, c.classes_per_task = classes;
  return c;
}

/// Every sample's label is the head label of its class.
inline void check_labels(const Dataset& d, const Task& t, const SampleSet& set) {
  std::map<std::int32_t, std::int32_t> label_of;
  for (std::size_t i = 0; i < t.classes.size(); ++i) label_of[t.classes[i]] = t.head_labels[i];
  REQUIRE(set.indices.size() == set.labels.size());
  for (std::size_t i = 0; i < set.indices.size(); ++i)
    REQUIRE(set.labels[i] == label_of.at(d.label(set.split, set.indices[i])));
}

inline bool same(const SampleSet& a, const SampleSet& b) { return a.indices == b.indices && a.labels == b.labels; }

}  // namespace eg::test
