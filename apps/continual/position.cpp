// apps/continual/position.cpp - see position.h.
#include "apps/continual/position.h"

#include <nlohmann/json.hpp>

namespace eg {

nlohmann::json to_json(const Position& p) {
  return {{"run", p.run},
          {"task", p.task},
          {"epoch", p.epoch},
          {"batch", p.batch},
          {"begun", p.begun},
          {"loss_sum", p.loss_sum},
          {"seconds", p.seconds},
          {"train_seconds", p.train_seconds},
          {"wait_seconds", p.wait_seconds},
          {"probe_seconds", p.probe_seconds},
          {"peak_bytes", p.peak_bytes},
          {"correct", p.correct},
          {"seen", p.seen},
          {"trained_images", p.trained_images},
          {"task_correct", p.task_correct},
          {"task_seen", p.task_seen},
          {"epoch_accuracy", p.epoch_accuracy},
          {"curve", p.curve},
          {"shift", p.shift.to_json()}};
}
Position position_from_json(const nlohmann::json& j) {
  Position p;
  p.run = j.at("run"), p.task = j.at("task"), p.epoch = j.at("epoch"), p.batch = j.at("batch"), p.begun = j.at("begun");
  p.loss_sum = j.at("loss_sum"), p.seconds = j.at("seconds"), p.train_seconds = j.at("train_seconds");
  p.wait_seconds = j.at("wait_seconds"), p.correct = j.at("correct"), p.seen = j.at("seen"),
  p.trained_images = j.at("trained_images");
  p.probe_seconds = j.value("probe_seconds", 0.0), p.peak_bytes = j.value("peak_bytes", std::int64_t(0));
  p.task_correct = j.value("task_correct", std::int64_t(0)), p.task_seen = j.value("task_seen", std::int64_t(0));
  p.epoch_accuracy = j.value("epoch_accuracy", std::vector<double>{});
  p.curve = j.value("curve", std::vector<double>{});
  if (j.contains("shift")) p.shift = ShiftTracker::from_json(j.at("shift"));
  return p;
}

}  // namespace eg
