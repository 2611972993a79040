// data/streams/protocol_stream.h - one data set, one protocol (private to data/). protocol_stream.cpp puts a task
// together; classes.cpp, images.cpp and labels.cpp say which classes it has, how its images change and what they are
// called.
#pragma once
#include <string>
#include <vector>

#include "data/stream.h"

namespace eg::detail {

class ProtocolStream : public TaskStream {
 public:
  ProtocolStream(std::shared_ptr<const Dataset> data, const StreamConfig& config);
  std::int64_t tasks() const override { return c_.tasks; }
  const std::shared_ptr<const Dataset>& dataset() const override { return data_; }
  std::int64_t head_classes() const override;
  std::string describe() const override;
  Task task(std::int64_t t) const override;
  ClassSampling sampling() const { return sampling_; }

 private:
  /// Classes first .. first + count - 1 of the data set, from which some of the tasks draw.
  struct Source {
    std::string name;
    std::int64_t first = 0, count = 0;
  };
  /// Which source task t draws from, how many tasks of that source came before it, and the deal that this is: `unit`
  /// deals of `size` classes each came before; the task takes `count` of them, from `from` on.
  struct Deal {
    std::size_t source = 0;
    std::int64_t unit = 0, size = 0, from = 0, count = 0;
  };

  // classes.cpp
  bool by_class() const;
  bool pairs() const { return c_.protocol == Protocol::five_plus_one; }
  bool labels_by_class() const;  // every class has an output of its own
  void find_sources();
  void find_groups();
  void check_class_supply();
  std::int64_t tasks_of(std::size_t source) const;
  Deal deal_of(std::int64_t t) const;
  std::int64_t units_per_pass(const Deal& d) const { return sources_[d.source].count / d.size; }
  std::vector<std::int32_t> draw_classes(std::int64_t t) const;
  bool revisits(std::int64_t t) const;
  std::int32_t output_of(std::int32_t c) const;

  void check_ranges() const;
  void label_classes(Task& task) const;
  std::string detail_of(const Task& task) const;
  Transform transform_of(std::int64_t t) const;  // images.cpp
  double amount_of(std::int64_t t) const;        // images.cpp
  void relabel(Task& task) const;                // labels.cpp

  std::shared_ptr<const Dataset> data_;
  StreamConfig c_;
  std::int64_t n_, k_;
  ClassSampling sampling_ = ClassSampling::disjoint;
  std::vector<Source> sources_;
  std::vector<std::vector<std::int32_t>> groups_;  // Protocol::groups: the classes of each, in order of its name
  std::vector<std::string> group_names_;
};

}  // namespace eg::detail
