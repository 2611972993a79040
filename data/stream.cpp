// data/stream.cpp - which classes, labels and pixels each task gets. Everything is drawn from (seed, task index).
#include "data/stream.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {

// ---- names --------------------------------------------------------------------------------------------------------

namespace {
constexpr Protocol kProtocols[] = {Protocol::class_subset,
                                   Protocol::class_incremental,
                                   Protocol::label_permutation,
                                   Protocol::input_permutation,
                                   Protocol::random_label,
                                   Protocol::noisy_label,
                                   Protocol::domain};
std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& n : names) text += (text.empty() ? "" : ", ") + n;
  return text;
}
}  // namespace

const char* to_string(Protocol protocol) {
  switch (protocol) {
    case Protocol::class_subset: return "class-subset";
    case Protocol::class_incremental: return "class-incremental";
    case Protocol::label_permutation: return "label-permutation";
    case Protocol::input_permutation: return "input-permutation";
    case Protocol::random_label: return "random-label";
    case Protocol::noisy_label: return "noisy-label";
    case Protocol::domain: return "domain";
  }
  return "?";
}

const std::vector<std::string>& protocol_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Protocol p : kProtocols) all.push_back(to_string(p));
    return all;
  }();
  return names;
}

Protocol parse_protocol(const std::string& name) {
  for (const Protocol p : kProtocols)
    if (name == to_string(p)) return p;
  fail(Kind::usage, cat("unknown protocol '", name, "'; there are ", joined(protocol_names())));
}

ClassSampling parse_class_sampling(const std::string& name) {
  if (name == "auto") return ClassSampling::automatic;
  if (name == "disjoint") return ClassSampling::disjoint;
  if (name == "deck") return ClassSampling::deck;
  if (name == "iid") return ClassSampling::iid;
  fail(Kind::usage, cat("unknown class sampling '", name, "'; there are auto, disjoint, deck and iid"));
}

// ---- permutations in O(1) memory ------------------------------------------------------------------------------------

PointPermutation::PointPermutation(std::uint64_t n, std::uint64_t seed, std::uint32_t stream, std::uint32_t step)
    : n_(n), seed_(seed), stream_(stream), step_(step) {
  check(n >= 1 && n <= std::uint64_t(1) << 62, Kind::usage, [&] { return cat("a permutation of ", n, " items"); });
  while ((std::uint64_t(1) << (2 * half_bits_)) < n) ++half_bits_;
}

std::uint64_t PointPermutation::round_trip(std::uint64_t i, bool backwards) const {
  const std::uint64_t mask = (std::uint64_t(1) << half_bits_) - 1;
  std::uint64_t left = i >> half_bits_, right = i & mask;
  for (std::uint32_t r = 0; r < 8; ++r) {
    const std::uint32_t round = backwards ? 7 - r : r;
    const std::uint64_t in = backwards ? left : right;
    const std::uint64_t f =
        philox4x32_10({std::uint32_t(in), round, step_, stream_}, std::uint32_t(seed_), std::uint32_t(seed_ >> 32))[0];
    if (backwards) {
      const std::uint64_t old_left = right ^ (f & mask);
      right = left, left = old_left;
    } else {
      const std::uint64_t new_right = left ^ (f & mask);
      left = right, right = new_right;
    }
  }
  return left << half_bits_ | right;
}

std::uint64_t PointPermutation::operator()(std::uint64_t i) const {
  do i = round_trip(i, false);
  while (i >= n_);
  return i;
}
std::uint64_t PointPermutation::inverse(std::uint64_t i) const {
  do i = round_trip(i, true);
  while (i >= n_);
  return i;
}

// ---- samples of a class ---------------------------------------------------------------------------------------------

namespace {

constexpr std::int64_t kMaxHead = 1'000'000;

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

struct Selection {
  std::int64_t train_limit = 0, test_limit = 0;
  double validation = 0.0;
  std::uint64_t seed = 1;
};

/// Fills train, validation and test from the classes; the choice within a class depends on (seed, class) only, so that
/// a class that comes back brings the same images and keeps its validation images out of training.
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

// ---- one data set, one protocol -----------------------------------------------------------------------------------

class ProtocolStream : public TaskStream {
 public:
  ProtocolStream(std::shared_ptr<const Dataset> data, const StreamConfig& config)
      : data_(std::move(data)), c_(config), n_(data_->classes()), k_(config.classes_per_task) {
    check_ranges();
    if (by_class()) {
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
  std::int64_t tasks() const override { return c_.tasks; }
  const std::shared_ptr<const Dataset>& dataset() const override { return data_; }

  std::int64_t head_classes() const override {
    if (c_.protocol == Protocol::class_incremental) return c_.tasks * k_;
    if (c_.protocol == Protocol::class_subset && c_.global_labels)
      return sampling_ == ClassSampling::disjoint ? c_.tasks * k_ : n_;
    return k_;
  }
  std::string describe() const override {
    std::string text =
        cat(to_string(c_.protocol), " on ", data_->name(), ": ", c_.tasks, " tasks, ", k_, " classes each");
    if (c_.protocol == Protocol::class_subset)
      text += sampling_ == ClassSampling::disjoint ? ", disjoint"
              : sampling_ == ClassSampling::deck   ? ", dealt from a deck of all classes"
                                                   : ", drawn independently";
    if (c_.protocol == Protocol::input_permutation) text += ", " + c_.permutation;
    if (c_.protocol == Protocol::domain) text += ", " + c_.domain;
    return text;
  }
  Task task(std::int64_t t) const override;

 private:
  bool by_class() const { return c_.protocol == Protocol::class_subset || c_.protocol == Protocol::class_incremental; }
  void check_ranges() const;
  void check_class_supply();
  std::vector<std::int32_t> draw_classes(std::int64_t t) const;
  void relabel(Task& task) const;
  Transform transform_of(std::int64_t t) const;

  std::shared_ptr<const Dataset> data_;
  StreamConfig c_;
  std::int64_t n_, k_;
  ClassSampling sampling_ = ClassSampling::disjoint;
};

void ProtocolStream::check_ranges() const {
  check(c_.tasks >= 1 && c_.tasks < std::int64_t(1) << 31, Kind::usage,
        [&] { return cat("a stream of ", c_.tasks, " tasks; needed: 1 to 2^31 - 1"); });
  check(k_ >= 0 && k_ <= n_, Kind::usage, [&] {
    return cat(k_, " classes per task were asked for, but ", data_->name(), " has ", n_, "; use --classes-per-task ",
               n_, " or fewer");
  });
  check(k_ > 0 || !by_class(), Kind::usage, [&] {
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

void ProtocolStream::check_class_supply() {
  const bool enough = c_.tasks <= n_ / k_;
  const auto exhausted = [&] {
    return cat(
        c_.tasks, " tasks of ", k_, " new classes need ", c_.tasks * k_, " classes, but ", data_->name(), " has ", n_,
        "; use at most ", n_ / k_, " tasks, or at most ", std::max<std::int64_t>(1, n_ / c_.tasks), " classes per task",
        c_.protocol == Protocol::class_subset ? ", or the class sampling 'deck', which lets classes come back" : "");
  };
  if (c_.protocol == Protocol::class_incremental) return check(enough, Kind::usage, exhausted);
  sampling_ = c_.sampling;
  if (sampling_ == ClassSampling::automatic) sampling_ = enough ? ClassSampling::disjoint : ClassSampling::deck;
  check(sampling_ != ClassSampling::disjoint || enough, Kind::usage, exhausted);
}

std::vector<std::int32_t> ProtocolStream::draw_classes(std::int64_t t) const {
  std::vector<std::int32_t> classes(static_cast<std::size_t>(k_));
  if (!by_class()) {
    if (k_ == n_) {
      std::iota(classes.begin(), classes.end(), 0);
      return classes;
    }
    t = 0;
  }
  // A pass deals floor(n / k) tasks; what is left of the deck waits for the next shuffle, so that no task can hold a
  // class twice.
  const bool iid = by_class() && sampling_ == ClassSampling::iid;
  const std::int64_t per_pass = iid ? 1 : n_ / k_;
  const PointPermutation order(std::uint64_t(n_), c_.seed, fnv1a("stream/classes"), std::uint32_t(t / per_pass));
  for (std::int64_t i = 0; i < k_; ++i)
    classes[std::size_t(i)] = std::int32_t(order(std::uint64_t(t % per_pass * k_ + i)));
  return classes;
}

Transform ProtocolStream::transform_of(std::int64_t t) const {
  Transform f;
  f.seed = c_.seed;
  f.stream = std::uint32_t(t);
  f.patch = c_.patch;
  // Where task t stands between the first (0) and the last (1) task.
  const double along = c_.tasks > 1 ? double(t) / double(c_.tasks - 1) : 0.0;
  const auto set = [&](TransformKind kind, double amount) { f.kind = kind, f.amount = amount; };
  if (c_.protocol == Protocol::input_permutation) {
    if (c_.permutation == "pixels") return set(TransformKind::permute_pixels, 0), f;
    if (c_.permutation == "in-patch") return set(TransformKind::permute_in_patch, 0), f;
    if (c_.permutation == "patches") return set(TransformKind::permute_patches, 0), f;
    fail(Kind::usage, cat("unknown input permutation '", c_.permutation, "'; there are pixels, in-patch and patches"));
  }
  if (c_.protocol != Protocol::domain) return f;
  if (c_.domain == "rotation") return set(TransformKind::rotate, 360.0 * double(t) / double(c_.tasks)), f;
  if (c_.domain == "hue") return set(TransformKind::hue, 360.0 * double(t) / double(c_.tasks)), f;
  if (c_.domain == "contrast") return set(TransformKind::contrast, 1.0 - 0.7 * along), f;
  if (c_.domain == "blur") return set(TransformKind::blur, 2.0 * along), f;
  if (c_.domain == "noise") return set(TransformKind::noise, 0.3 * along), f;
  if (c_.domain == "inversion") return set(t % 2 ? TransformKind::invert : TransformKind::none, 0), f;
  fail(Kind::usage,
       cat("unknown domain '", c_.domain, "'; there are rotation, hue, contrast, blur, noise and inversion"));
}

/// random-label and noisy-label: labels per image, decided by (seed, image index) and, for random-label, the task.
void ProtocolStream::relabel(Task& task) const {
  const auto k = std::uint32_t(k_);
  if (c_.protocol == Protocol::random_label) {
    const Key draw = key(c_.seed, "stream/random-label", "", std::uint32_t(task.index));
    for (SampleSet* set : {&task.train, &task.validation})
      for (std::size_t i = 0; i < set->indices.size(); ++i)
        set->labels[i] = std::int32_t(draw.below(std::uint64_t(set->indices[i]), k));
    // Random labels say nothing about other images: what can be measured is how well the training images were learned.
    task.test = task.train;
    if (c_.test_limit > 0 && task.test.size() > c_.test_limit) {
      SampleSet some;
      for (std::int64_t i = 0; i < c_.test_limit; ++i) {
        const auto at = std::size_t(i * task.train.size() / c_.test_limit);
        some.indices.push_back(task.train.indices[at]);
        some.labels.push_back(task.train.labels[at]);
      }
      task.test = std::move(some);
    }
  }
  if (c_.protocol == Protocol::noisy_label && k > 1) {
    task.label_noise =
        c_.tasks > 1 ? c_.label_noise * (1.0 - double(task.index) / double(c_.tasks - 1)) : c_.label_noise;
    const Key draw = key(c_.seed, "stream/noisy-label", "");
    for (std::size_t i = 0; i < task.train.indices.size(); ++i) {
      const auto index = std::uint64_t(task.train.indices[i]);
      if (draw.uniform(2 * index) >= task.label_noise) continue;
      std::int32_t& label = task.train.labels[i];
      label = std::int32_t((std::uint32_t(label) + 1 + draw.below(2 * index + 1, k - 1)) % k);
    }
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
  task.revisit = c_.protocol == Protocol::class_subset &&
                 ((sampling_ == ClassSampling::iid && t > 0) || (sampling_ == ClassSampling::deck && t >= n_ / k_));
  task.head_labels.resize(task.classes.size());
  std::iota(task.head_labels.begin(), task.head_labels.end(), 0);
  std::vector<std::int32_t> test_classes = task.classes;
  std::vector<std::int32_t> train_classes = task.classes;
  if (c_.protocol == Protocol::label_permutation) {
    shuffle(task.head_labels.begin(), task.head_labels.size(),
            key(c_.seed, "stream/label-permutation", "", std::uint32_t(t)));
  } else if (c_.protocol == Protocol::class_subset && c_.global_labels) {
    const PointPermutation order(std::uint64_t(n_), c_.seed, fnv1a("stream/classes"), 0);
    task.class_mask.assign(std::size_t(task.head_classes), 0);
    for (std::size_t i = 0; i < task.classes.size(); ++i) {
      task.head_labels[i] = std::int32_t(order.inverse(std::uint64_t(task.classes[i])));
      task.class_mask[std::size_t(task.head_labels[i])] = 1;
    }
  }
  std::vector<std::int32_t> test_labels = task.head_labels;
  std::vector<std::int32_t> train_labels = task.head_labels;
  if (c_.protocol == Protocol::class_incremental) {
    test_classes.clear();
    for (std::int64_t s = 0; s <= t; ++s) {
      const auto some = draw_classes(s);
      test_classes.insert(test_classes.end(), some.begin(), some.end());
    }
    test_labels.resize(test_classes.size());
    std::iota(test_labels.begin(), test_labels.end(), 0);
    for (std::int32_t& label : task.head_labels) label += std::int32_t(t * k_);
    train_classes = c_.accumulate ? test_classes : task.classes;
    train_labels = c_.accumulate ? test_labels : task.head_labels;
    task.class_mask.assign(std::size_t(task.head_classes), 0);
    std::fill_n(task.class_mask.begin(), (t + 1) * k_, std::uint8_t(1));
  }
  select_samples(*data_, train_classes, train_labels, test_classes, test_labels,
                 {c_.train_limit, c_.test_limit, c_.validation, c_.seed}, task);
  relabel(task);
  check(task.train.size() > 0 && task.test.size() > 0, Kind::usage, [&] {
    return cat(
        "task ", t, " has ", task.train.size(), " training and ", task.test.size(),
        " test images; each needs at least one: raise --train-limit or --test-limit, or use classes with more images");
  });
  task.name = task_name(*data_, t, task.classes,
                        task.transform.kind != TransformKind::none || c_.protocol == Protocol::domain
                            ? task.transform.describe()
                        : c_.protocol == Protocol::label_permutation ? "labels permuted"
                        : c_.protocol == Protocol::random_label      ? "random labels"
                        : c_.protocol == Protocol::noisy_label       ? cat("label noise ", task.label_noise)
                                                                     : std::string());
  return task;
}

// ---- concatenation ------------------------------------------------------------------------------------------------

class ConcatStream : public TaskStream {
 public:
  explicit ConcatStream(std::vector<std::shared_ptr<const TaskStream>> parts) : parts_(std::move(parts)) {
    check(!parts_.empty(), Kind::usage, [] { return std::string("a concatenation of no streams"); });
    for (const auto& part : parts_)
      check(part && part->dataset() == parts_[0]->dataset(), Kind::usage,
            [] { return std::string("concatenated streams must share one data set"); });
  }
  std::int64_t tasks() const override {
    std::int64_t sum = 0;
    for (const auto& part : parts_) sum += part->tasks();
    return sum;
  }
  std::int64_t head_classes() const override {
    std::int64_t most = 0;
    for (const auto& part : parts_) most = std::max(most, part->head_classes());
    return most;
  }
  const std::shared_ptr<const Dataset>& dataset() const override { return parts_[0]->dataset(); }
  std::string describe() const override {
    std::string text;
    for (const auto& part : parts_) text += (text.empty() ? "" : ", then ") + part->describe();
    return text;
  }
  Task task(std::int64_t t) const override {
    std::int64_t local = t;
    for (const auto& part : parts_) {
      if (local >= part->tasks()) {
        local -= part->tasks();
        continue;
      }
      Task task = part->task(local);
      // A part with a smaller head must not answer with the outputs of another part.
      if (task.head_classes < head_classes()) {
        if (task.class_mask.empty()) task.class_mask.assign(std::size_t(task.head_classes), 1);
        task.class_mask.resize(std::size_t(head_classes()), 0);
        task.head_classes = head_classes();
      }
      task.name = cat("task ", t, task.name.substr(std::min(task.name.size(), cat("task ", local).size())));
      task.index = t;
      task.revisit = task.revisit || part != parts_.front();  // all parts draw from the same classes
      return task;
    }
    fail(Kind::usage, cat("task ", t, " of a stream with tasks 0..", tasks() - 1));
  }

 private:
  std::vector<std::shared_ptr<const TaskStream>> parts_;
};

}  // namespace

std::shared_ptr<const TaskStream> make_stream(std::shared_ptr<const Dataset> data, const StreamConfig& config) {
  return std::make_shared<ProtocolStream>(std::move(data), config);
}

std::shared_ptr<const TaskStream> concatenate(std::vector<std::shared_ptr<const TaskStream>> parts) {
  return std::make_shared<ConcatStream>(std::move(parts));
}

namespace {
class ValidationStream : public TaskStream {
 public:
  explicit ValidationStream(std::shared_ptr<const TaskStream> stream) : stream_(std::move(stream)) {}
  std::int64_t tasks() const override { return stream_->tasks(); }
  Task task(std::int64_t t) const override {
    Task task = stream_->task(t);
    if (task.test.split == Split::train) return task;  // random labels: to know them is to have learned them
    check(task.validation.size() > 0, Kind::usage, [&] {
      return cat("task ", t, " holds no image out for validation; raise --validation, or use classes with more images");
    });
    task.test = task.validation;
    return task;
  }
  const std::shared_ptr<const Dataset>& dataset() const override { return stream_->dataset(); }
  std::int64_t head_classes() const override { return stream_->head_classes(); }
  std::string describe() const override { return stream_->describe() + "; tested on held-out training images"; }

 private:
  std::shared_ptr<const TaskStream> stream_;
};
}  // namespace

std::shared_ptr<const TaskStream> tested_on_validation(std::shared_ptr<const TaskStream> stream) {
  return std::make_shared<ValidationStream>(std::move(stream));
}

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
  select_samples(data, task.classes, task.classes, task.classes, task.classes,
                 {train_limit, test_limit, validation, seed}, task);
  check(task.train.size() > 0 && task.test.size() > 0, Kind::usage, [&] {
    return cat(data.name(), ": ", task.train.size(), " training and ", task.test.size(),
               " test images are left; each needs at least one");
  });
  return task;
}

}  // namespace eg
