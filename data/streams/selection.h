// data/streams/selection.h - which images of its classes a task gets (private to data/).
#pragma once
#include <string>
#include <vector>

#include "data/stream.h"

namespace eg::detail {

struct Selection {
  std::int64_t train_limit = 0, test_limit = 0;
  double validation = 0.0;
  std::uint64_t seed = 1;
};

/// Fills train, validation and test from the classes; the choice within a class depends on (seed, class) only, so that
/// a class that comes back brings the same images and keeps its validation images out of training.
void select_samples(const Dataset& data, const std::vector<std::int32_t>& train_classes,
                    const std::vector<std::int32_t>& train_labels, const std::vector<std::int32_t>& test_classes,
                    const std::vector<std::int32_t>& test_labels, const Selection& s, Task& task);

/// "task 3: apple, bear, ...", or "task 3: detail".
std::string task_name(const Dataset& data, std::int64_t t, const std::vector<std::int32_t>& classes,
                      const std::string& detail);

}  // namespace eg::detail
