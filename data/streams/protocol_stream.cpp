// data/streams/protocol_stream.cpp - a task from its parts. Everything is drawn from (seed, task index).
#include "data/streams/protocol_stream.h"

#include <algorithm>
#include <numeric>

#include "data/streams/selection.h"
#include "engine/error.h"
#include "engine/rng.h"

namespace eg {
namespace detail {
namespace {
constexpr std::int64_t kMaxHead = 1'000'000;
/// 5+1 keeps one output per class of the data set (the paper's head is 100-way); a larger data set gets outputs for the
/// classes that its tasks show.
constexpr std::int64_t kWholeHead = 1000;
}  // namespace

ProtocolStream::ProtocolStream(std::shared_ptr<const Dataset> data, const StreamConfig& config)
    : data_(std::move(data)), c_(config), n_(data_->classes()), k_(config.classes_per_task) {
  check_ranges();
  find_sources();
  if (c_.protocol == Protocol::groups) {
    find_groups();
  } else if (by_class()) {
    check_class_supply();
  } else {
    check(k_ > 0 || n_ <= 100'000, Kind::usage, [&] {
      return cat(data_->name(), " has ", n_, " classes; say how many the stream shall use with --classes-per-task");
    });
    if (k_ == 0) k_ = n_;
  }
  check(head_classes() <= kMaxHead, Kind::usage, [&] {
    return cat("this stream needs a head with ", head_classes(), " outputs, more than ", kMaxHead,
               "; use fewer tasks or classes, or labels local to the task");
  });
}

void ProtocolStream::check_ranges() const {
  check(c_.tasks >= 1 && c_.tasks < std::int64_t(1) << 31, Kind::usage,
        [&] { return cat("a stream of ", c_.tasks, " tasks; needed: 1 to 2^31 - 1"); });
  check((k_ >= 0 && k_ <= n_) || c_.protocol == Protocol::groups, Kind::usage, [&] {
    return cat(k_, " classes per task were asked for, but ", data_->name(), " has ", n_, "; use --classes-per-task ",
               n_, " or fewer");
  });
  check(k_ > 0 || !by_class() || c_.protocol == Protocol::groups, Kind::usage, [&] {
    return cat("the protocol ", to_string(c_.protocol), " needs at least 1 class per task (--classes-per-task)");
  });
  check(c_.train_limit >= 0 && c_.test_limit >= 0, Kind::usage, [&] {
    return cat("limits of ", c_.train_limit, " training and ", c_.test_limit, " test images per task; 0 means all");
  });
  check(c_.validation >= 0.0 && c_.validation <= 0.9, Kind::usage,
        [&] { return cat("a validation share of ", c_.validation, " is outside 0..0.9"); });
  check(c_.label_noise >= 0.0 && c_.label_noise <= 1.0, Kind::usage,
        [&] { return cat("a label-noise probability of ", c_.label_noise, " is outside 0..1"); });
  (void)transform_of(0);
}

std::int64_t ProtocolStream::head_classes() const {
  if (c_.protocol == Protocol::class_incremental) return c_.tasks * k_;
  if (c_.protocol == Protocol::groups && !c_.global_labels) {
    std::size_t most = 0;
    for (const auto& group : groups_) most = std::max(most, group.size());
    return std::int64_t(most);
  }
  if (!labels_by_class()) return k_;
  const bool few = sampling_ == ClassSampling::disjoint && sources_.size() == 1 && c_.protocol != Protocol::groups;
  if (pairs()) return few && n_ > kWholeHead ? (c_.tasks + 1) / 2 * (k_ + 1) : n_;
  return few ? c_.tasks * k_ : n_;
}

std::string ProtocolStream::describe() const {
  std::string text = cat(to_string(c_.protocol), " on ", data_->name(), ": ", c_.tasks, " tasks, ");
  if (c_.protocol == Protocol::groups) {
    std::size_t least = groups_[0].size(), most = least;
    for (const auto& group : groups_) least = std::min(least, group.size()), most = std::max(most, group.size());
    text += cat("each a folder of ", least, " to ", most, " classes");
  } else if (pairs()) {
    text += cat(k_, " classes and 1 class in turn");
  } else {
    text += cat(k_, " classes each");
  }
  if (by_class() && c_.protocol != Protocol::class_incremental)
    text += sampling_ == ClassSampling::disjoint ? ", disjoint"
            : sampling_ == ClassSampling::deck   ? ", dealt from a deck of all classes"
                                                 : ", drawn independently";
  if (sources_.size() > 1)
    text += c_.order == ClassOrder::interleaved ? ", data sets interleaved" : ", one data set after another";
  if (c_.protocol == Protocol::input_permutation) text += ", " + c_.permutation;
  if (c_.protocol == Protocol::domain) text += cat(", ", c_.gradual ? "gradual " : "", c_.domain);
  return text;
}

/// Fills head_labels and class_mask; the classes of a class-incremental task are labelled by where they arrived.
void ProtocolStream::label_classes(Task& task) const {
  task.head_labels.resize(task.classes.size());
  std::iota(task.head_labels.begin(), task.head_labels.end(), 0);
  const auto allow = [&](std::int64_t outputs) {
    task.class_mask.assign(std::size_t(task.head_classes), 0);
    std::fill_n(task.class_mask.begin(), outputs, std::uint8_t(1));
  };
  if (c_.protocol == Protocol::label_permutation) {
    shuffle(task.head_labels.begin(), task.head_labels.size(),
            key(c_.seed, "stream/label-permutation", "", std::uint32_t(task.index)));
  } else if (c_.protocol == Protocol::class_incremental) {
    for (std::int32_t& label : task.head_labels) label += std::int32_t(task.index * k_);
    allow((task.index + 1) * k_);
  } else if (labels_by_class()) {
    for (std::size_t i = 0; i < task.classes.size(); ++i) task.head_labels[i] = output_of(task.classes[i]);
    if (!c_.global_labels) return;
    allow(0);
    for (const std::int32_t label : task.head_labels) task.class_mask[std::size_t(label)] = 1;
  } else if (c_.protocol == Protocol::groups && std::int64_t(task.classes.size()) < task.head_classes) {
    allow(std::int64_t(task.classes.size()));
  }
}

std::string ProtocolStream::detail_of(const Task& task) const {
  if (task.transform.kind != TransformKind::none || c_.protocol == Protocol::domain) return task.transform.describe();
  switch (c_.protocol) {
    case Protocol::groups: {
      const auto at = std::size_t(std::find(groups_.begin(), groups_.end(), task.classes) - groups_.begin());
      return cat(group_names_[at], ", ", task.classes.size(), " classes");
    }
    case Protocol::label_permutation: return "labels permuted";
    case Protocol::random_label: return "random labels";
    case Protocol::noisy_label: return cat("label noise ", task.label_noise);
    default: return {};
  }
}

Task ProtocolStream::task(std::int64_t t) const {
  check(t >= 0 && t < c_.tasks, Kind::usage,
        [&] { return cat("task ", t, " of a stream with tasks 0..", c_.tasks - 1); });
  Task task;
  task.index = t;
  task.head_classes = head_classes();
  task.classes = draw_classes(t);
  task.transform = transform_of(t);
  task.revisit = revisits(t);
  task.easy = pairs() && deal_of(t).from > 0;
  label_classes(task);
  std::vector<std::int32_t> test_classes = task.classes, test_labels = task.head_labels;
  std::vector<std::int32_t> train_classes = test_classes, train_labels = test_labels;
  if (c_.protocol == Protocol::class_incremental) {
    test_classes.clear();
    for (std::int64_t s = 0; s <= t; ++s) {
      const auto some = draw_classes(s);
      test_classes.insert(test_classes.end(), some.begin(), some.end());
    }
    test_labels.resize(test_classes.size());
    std::iota(test_labels.begin(), test_labels.end(), 0);
    if (c_.accumulate) train_classes = test_classes, train_labels = test_labels;
  }
  select_samples(*data_, train_classes, train_labels, test_classes, test_labels,
                 {c_.train_limit, c_.test_limit, c_.validation, c_.seed}, task);
  relabel(task);
  check(task.train.size() > 0 && task.test.size() > 0, Kind::usage, [&] {
    return cat(
        "task ", t, " has ", task.train.size(), " training and ", task.test.size(),
        " test images; each needs at least one: raise --train-limit or --test-limit, or use classes with more images");
  });
  task.name = task_name(*data_, t, task.classes, detail_of(task));
  return task;
}

}  // namespace detail

std::shared_ptr<const TaskStream> make_stream(std::shared_ptr<const Dataset> data, const StreamConfig& config) {
  return std::make_shared<detail::ProtocolStream>(std::move(data), config);
}

ClassSampling resolved_sampling(const std::shared_ptr<const Dataset>& data, const StreamConfig& config) {
  return detail::ProtocolStream(data, config).sampling();
}

}  // namespace eg
