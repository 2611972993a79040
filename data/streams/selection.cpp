// data/streams/selection.cpp - see selection.h.
#include "data/streams/selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {
namespace detail {
namespace {

/// `limit` shared out over classes as evenly as their sizes allow; what a small class cannot use goes to the others.
std::vector<std::int64_t> quotas(const std::vector<std::vector<std::int64_t>>& classes, std::int64_t limit) {
  std::vector<std::size_t> order(classes.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return classes[a].size() < classes[b].size(); });
  std::vector<std::int64_t> quota(classes.size());
  std::int64_t left = limit;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int64_t size = std::int64_t(classes[order[i]].size());
    quota[order[i]] = limit > 0 ? std::min(size, left / std::int64_t(order.size() - i)) : size;
    left -= quota[order[i]];
  }
  return quota;
}

void add_samples(SampleSet& set, std::vector<std::int64_t> indices, std::int64_t count, std::int32_t label) {
  indices.resize(std::size_t(std::min(count, std::int64_t(indices.size()))));
  std::sort(indices.begin(), indices.end());
  set.indices.insert(set.indices.end(), indices.begin(), indices.end());
  set.labels.insert(set.labels.end(), indices.size(), label);
}

}  // namespace

void select_samples(const Dataset& data, const std::vector<std::int32_t>& train_classes,
                    const std::vector<std::int32_t>& train_labels, const std::vector<std::int32_t>& test_classes,
                    const std::vector<std::int32_t>& test_labels, const Selection& s, Task& task) {
  const auto shuffled = [&](Split split, std::int32_t c) {
    std::vector<std::int64_t> indices = data.indices_of(split, c);
    shuffle(indices.begin(), indices.size(), key(s.seed, "stream/samples", to_string(split), std::uint32_t(c)));
    return indices;
  };
  task.train.split = task.validation.split = Split::train;
  task.test.split = Split::test;
  std::vector<std::vector<std::int64_t>> train, test;
  for (std::size_t k = 0; k < train_classes.size(); ++k) {
    train.push_back(shuffled(Split::train, train_classes[k]));
    const auto held = std::int64_t(std::floor(s.validation * double(train.back().size())));
    add_samples(task.validation, train.back(), held, train_labels[k]);
    train.back().erase(train.back().begin(), train.back().begin() + held);
  }
  const auto train_quota = quotas(train, s.train_limit);
  for (std::size_t k = 0; k < train.size(); ++k) add_samples(task.train, train[k], train_quota[k], train_labels[k]);
  for (const std::int32_t c : test_classes) test.push_back(shuffled(Split::test, c));
  const auto test_quota = quotas(test, s.test_limit);
  for (std::size_t k = 0; k < test.size(); ++k) add_samples(task.test, test[k], test_quota[k], test_labels[k]);
}

std::string task_name(const Dataset& data, std::int64_t t, const std::vector<std::int32_t>& classes,
                      const std::string& detail) {
  std::string text = cat("task ", t);
  if (!detail.empty()) return text + ": " + detail;
  for (std::size_t i = 0; i < classes.size() && i < 6; ++i) text += (i ? ", " : ": ") + data.class_name(classes[i]);
  return classes.size() > 6 ? text + ", ..." : text;
}

}  // namespace detail

Task whole_dataset(const Dataset& data, int classes, std::int64_t train_limit, std::int64_t test_limit,
                   double validation, std::uint64_t seed) {
  check(classes >= 0 && classes <= data.classes(), Kind::usage,
        [&] { return cat(classes, " classes were asked for, but ", data.name(), " has ", data.classes()); });
  check(classes > 0 || data.classes() <= 100'000, Kind::usage, [&] {
    return cat(data.name(), " has ", data.classes(), " classes; say how many to use with --classes-per-task");
  });
  check(train_limit >= 0 && test_limit >= 0 && validation >= 0.0 && validation <= 0.9, Kind::usage, [&] {
    return cat("limits ", train_limit, " and ", test_limit, " must not be negative, validation ", validation,
               " must be in 0..0.9");
  });
  Task task;
  task.classes.resize(std::size_t(classes ? classes : data.classes()));
  std::iota(task.classes.begin(), task.classes.end(), 0);
  task.head_labels = task.classes;
  task.head_classes = std::int64_t(task.classes.size());
  task.name = cat(data.name(), ", ", task.head_classes, " classes");
  detail::select_samples(data, task.classes, task.classes, task.classes, task.classes,
                         {train_limit, test_limit, validation, seed}, task);
  check(task.train.size() > 0 && task.test.size() > 0, Kind::usage, [&] {
    return cat(data.name(), ": ", task.train.size(), " training and ", task.test.size(),
               " test images are left; each needs at least one");
  });
  return task;
}

}  // namespace eg
