// data/streams/labels.cpp - what images are called where labels are random or noisy.
#include "data/streams/protocol_stream.h"
#include "engine/rng.h"

namespace eg::detail {

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

}  // namespace eg::detail
