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
          {"correct", p.correct},
          {"seen", p.seen},
          {"trained_images", p.trained_images}};
}
Position position_from_json(const nlohmann::json& j) {
  Position p;
  p.run = j.at("run"), p.task = j.at("task"), p.epoch = j.at("epoch"), p.batch = j.at("batch"), p.begun = j.at("begun");
  p.loss_sum = j.at("loss_sum"), p.seconds = j.at("seconds"), p.train_seconds = j.at("train_seconds");
  p.wait_seconds = j.at("wait_seconds"), p.correct = j.at("correct"), p.seen = j.at("seen"),
  p.trained_images = j.at("trained_images");
  return p;
}

}  // namespace eg
