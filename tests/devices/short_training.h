// tests/devices/short_training.h - a training of three steps an epoch in bf16, whose products have more than one kernel.
#pragma once
#include <sstream>

#include "tests/apps/command.h"

namespace eg {

/// emulated: what EVERGRAD_EMULATED says; on a GPU it says nothing.
inline Args short_training(const std::string& device, const std::filesystem::path& cache, const std::string& emulated,
                           const std::filesystem::path& out) {
  return {"/usr/bin/env",
          "EVERGRAD_EMULATED=" + emulated,
          "EVERGRAD_CACHE=" + cache.string(),
          EVERGRAD_BINARY,
          "train",
          "--device",
          device,
          "--precision",
          "bf16",
          "--stream",
          "procedural",
          "--classes",
          "3",
          "--image-size",
          "16",
          "--patch",
          "8",
          "--dim",
          "32",
          "--depth",
          "1",
          "--heads",
          "1",
          "--batch",
          "8",
          "--train-limit",
          "24",
          "--test-limit",
          "8",
          "--out",
          out.string()};
}

/// Of every epoch, in all digits.
inline std::string losses(const std::filesystem::path& run) {
  std::string all;
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (const auto j = nlohmann::json::parse(line); j.contains("train_loss"))
      all += j.at("train_loss").dump() + " " + j.at("test_loss").dump() + "\n";
  REQUIRE(!all.empty());
  return all;
}

}  // namespace eg
