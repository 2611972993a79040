// data/streams/wrappers.cpp - streams made of streams: one after another, and tested on held-out images.
#include <algorithm>

#include "data/stream.h"
#include "engine/error.h"

namespace eg {
namespace {

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

std::shared_ptr<const TaskStream> concatenate(std::vector<std::shared_ptr<const TaskStream>> parts) {
  return std::make_shared<ConcatStream>(std::move(parts));
}

std::shared_ptr<const TaskStream> tested_on_validation(std::shared_ptr<const TaskStream> stream) {
  return std::make_shared<ValidationStream>(std::move(stream));
}

}  // namespace eg
