// data/streams/classes.cpp - which classes a task has: K at a time, five and one in turn, or a folder of them.
#include <algorithm>
#include <map>
#include <numeric>

#include "data/permutation.h"
#include "data/streams/protocol_stream.h"
#include "engine/error.h"
#include "engine/rng.h"

namespace eg::detail {

bool ProtocolStream::by_class() const {
  return c_.protocol == Protocol::class_subset || c_.protocol == Protocol::class_incremental ||
         c_.protocol == Protocol::five_plus_one || c_.protocol == Protocol::groups;
}

bool ProtocolStream::labels_by_class() const {
  if (pairs()) return true;
  return c_.global_labels && (c_.protocol == Protocol::class_subset || c_.protocol == Protocol::groups);
}

void ProtocolStream::find_sources() {
  const std::vector<DatasetPart> parts = data_->parts();
  if (c_.order == ClassOrder::mixed || parts.size() < 2 || !by_class() || c_.protocol == Protocol::groups) {
    sources_ = {{data_->name(), 0, n_}};
    return;
  }
  for (const DatasetPart& p : parts) sources_.push_back({p.name, p.first_class, p.classes});
  check(c_.tasks >= std::int64_t(sources_.size()), Kind::usage, [&] {
    return cat(c_.tasks, " tasks cannot visit ", sources_.size(), " data sets; use --tasks ", sources_.size(),
               " or more, or --order mixed");
  });
}

/// Groups are the folders in which class folders lie: alphabets of Omniglot hold characters.
void ProtocolStream::find_groups() {
  check(n_ <= 100'000, Kind::usage, [&] {
    return cat("the protocol groups looks at every class's name, and ", data_->name(), " has ", n_,
               " classes; use a data set of at most 100000, or class-subset");
  });
  std::map<std::string, std::vector<std::int32_t>> by_folder;
  for (std::int32_t c = 0; c < n_; ++c) {
    const std::string name = data_->class_name(c);
    const std::size_t slash = name.rfind('/');
    if (slash != std::string::npos) by_folder[name.substr(0, slash)].push_back(c);
  }
  check(by_folder.size() >= 2, Kind::usage, [&] {
    return cat("the protocol groups needs classes that lie in folders (alphabet/character), but the ", n_,
               " classes of ", data_->name(), " are in ", by_folder.size(),
               by_folder.size() == 1 ? " folder" : " folders",
               "; give the folder above the groups with --data, or use class-subset");
  });
  for (auto& [name, classes] : by_folder) group_names_.push_back(name), groups_.push_back(std::move(classes));
  const auto count = std::int64_t(groups_.size());
  sampling_ = c_.sampling;
  if (sampling_ == ClassSampling::automatic)
    sampling_ = c_.tasks <= count ? ClassSampling::disjoint : ClassSampling::deck;
  check(sampling_ != ClassSampling::disjoint || c_.tasks <= count, Kind::usage, [&] {
    return cat(c_.tasks, " tasks need as many folders of classes, but ", data_->name(), " has ", count,
               "; use --tasks ", count, " or fewer, or the class sampling 'deck', which lets them come back");
  });
}

std::int64_t ProtocolStream::tasks_of(std::size_t source) const {
  const auto all = std::int64_t(sources_.size()), s = std::int64_t(source);
  if (c_.order == ClassOrder::interleaved) return (c_.tasks - s + all - 1) / all;
  return (s + 1) * c_.tasks / all - s * c_.tasks / all;
}

void ProtocolStream::check_class_supply() {
  const std::int64_t size = pairs() ? k_ + 1 : k_;
  bool enough = true;
  std::string exhausted;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const Source& s = sources_[i];
    check(size <= s.count, Kind::usage, [&] {
      return cat(size, " classes at a time were asked for, but ", s.name, " has ", s.count,
                 "; use fewer with --classes-per-task");
    });
    const std::int64_t tasks = tasks_of(i), units = pairs() ? (tasks + 1) / 2 : tasks, most = s.count / size;
    if (units <= most || !exhausted.empty()) continue;
    enough = false;
    exhausted = cat(
        tasks,
        pairs() ? cat(" tasks of ", k_, " and 1 new classes need ") : cat(" tasks of ", k_, " new classes need "),
        units * size, " classes, but ", s.name, " has ", s.count, "; use at most ", (pairs() ? 2 : 1) * most, " tasks",
        pairs() ? std::string() : cat(", or at most ", std::max<std::int64_t>(1, s.count / tasks), " classes per task"),
        c_.protocol != Protocol::class_incremental ? ", or the class sampling 'deck', which lets classes come back"
                                                   : "");
  }
  const auto say = [&] { return exhausted; };
  if (c_.protocol == Protocol::class_incremental) return check(enough, Kind::usage, say);
  sampling_ = c_.sampling;
  if (sampling_ == ClassSampling::automatic) sampling_ = enough ? ClassSampling::disjoint : ClassSampling::deck;
  check(sampling_ != ClassSampling::disjoint || enough, Kind::usage, say);
}

ProtocolStream::Deal ProtocolStream::deal_of(std::int64_t t) const {
  const auto all = std::int64_t(sources_.size());
  Deal d;
  std::int64_t local = t;
  if (c_.order == ClassOrder::interleaved) {
    d.source = std::size_t(t % all), local = t / all;
  } else {
    while (local >= tasks_of(d.source)) local -= tasks_of(d.source++);
  }
  const bool easy = pairs() && local % 2 == 1;
  d.unit = pairs() ? local / 2 : local;
  d.size = pairs() ? k_ + 1 : k_;
  d.from = easy ? k_ : 0;
  d.count = easy ? 1 : k_;
  return d;
}

std::vector<std::int32_t> ProtocolStream::draw_classes(std::int64_t t) const {
  if (c_.protocol == Protocol::groups) {
    const std::uint64_t count = groups_.size(), at = std::uint64_t(t);
    if (sampling_ == ClassSampling::iid)
      return groups_[key(c_.seed, "stream/groups", "").below(at, std::uint32_t(count))];
    return groups_[PointPermutation(count, c_.seed, fnv1a("stream/groups"), std::uint32_t(at / count))(at % count)];
  }
  if (!by_class() && k_ == n_) {
    std::vector<std::int32_t> classes(static_cast<std::size_t>(k_));
    std::iota(classes.begin(), classes.end(), 0);
    return classes;
  }
  // A pass deals floor(n / size) times; what is left of the deck waits for the next shuffle, so that no task can hold a
  // class twice.
  const Deal d = deal_of(by_class() ? t : 0);
  const Source& s = sources_[d.source];
  const std::int64_t per_pass = by_class() && sampling_ == ClassSampling::iid ? 1 : units_per_pass(d);
  const std::string purpose = d.source == 0 ? "stream/classes" : cat("stream/classes/", d.source);
  const PointPermutation order(std::uint64_t(s.count), c_.seed, fnv1a(purpose), std::uint32_t(d.unit / per_pass));
  std::vector<std::int32_t> classes(static_cast<std::size_t>(d.count));
  for (std::int64_t i = 0; i < d.count; ++i)
    classes[std::size_t(i)] =
        std::int32_t(s.first + std::int64_t(order(std::uint64_t(d.unit % per_pass * d.size + d.from + i))));
  return classes;
}

bool ProtocolStream::revisits(std::int64_t t) const {
  if (!by_class() || c_.protocol == Protocol::class_incremental || sampling_ == ClassSampling::disjoint) return false;
  if (sampling_ == ClassSampling::iid) return t > 0;
  if (c_.protocol == Protocol::groups) return t >= std::int64_t(groups_.size());
  const Deal d = deal_of(t);
  return d.unit >= units_per_pass(d);
}

/// The output of a class where every class has its own: by its place in the first deal of a single data set, so that a
/// disjoint stream needs no more outputs than it shows classes; else by its number.
std::int32_t ProtocolStream::output_of(std::int32_t c) const {
  if (sources_.size() > 1 || c_.protocol == Protocol::groups) return c;
  return std::int32_t(
      PointPermutation(std::uint64_t(n_), c_.seed, fnv1a("stream/classes"), 0).inverse(std::uint64_t(c)));
}

}  // namespace eg::detail
