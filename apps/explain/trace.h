// apps/explain/trace.h - one image on its way through one training step, in numbers: docs/tour.md reads along.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/device.h"

namespace eg {

/// What was found on the way: text for people, and the same numbers by section and name.
struct Trace {
  std::string text;
  std::string json;  // {"loader": {"label": 3, ...}, ...}, one line
};

/// A small ViT learns the first task of a procedural stream, and one more step of it is taken apart. On one thread of
/// the given host device: the same digits on every run that uses the same instruction set (EVERGRAD_CPU).
Trace trace_training_step(Device device);

/// Prints the trace of the cpu device with the instruction set that every processor has, so that the digits are the same
/// everywhere, and writes the numbers into `json_file`, when it is not empty. Must come before the first kernel of the
/// process. Returns the exit code.
int trace_step(const std::string& json_file);

}  // namespace eg
