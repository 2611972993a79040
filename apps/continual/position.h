// apps/continual/position.h - where in a continual run one is; with the tensors it makes a checkpoint.
#pragma once
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "apps/continual/shift.h"

namespace eg {

struct Position {
  std::size_t run = 0;  // index of the (method, seed) pair
  std::int64_t task = 0, epoch = 0, batch = 0;
  bool begun = false;  // the task's boundary work (head, optimizer) is done
  double loss_sum = 0.0, seconds = 0.0, train_seconds = 0.0, wait_seconds = 0.0, probe_seconds = 0.0;
  std::int64_t correct = 0, seen = 0, trained_images = 0, peak_bytes = 0;
  // Of the present task: counts over all its steps, training accuracy by epoch, test accuracy from before the first
  // update to after each epoch (--test-during).
  std::int64_t task_correct = 0, task_seen = 0;
  std::vector<double> epoch_accuracy, curve;
  ShiftTracker shift;  // of streams whose domain shifts
};

nlohmann::json to_json(const Position& p);
Position position_from_json(const nlohmann::json& j);

}  // namespace eg
