// apps/explain/table.h - the cost of a training step for people and for programs.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "apps/explain/cost.h"

namespace eg {

/// What a finished `evergrad bench` says about one method's whole step.
struct MeasuredStep {
  std::string method;
  double milliseconds = 0.0;
};

struct Explained {
  StepShape shape;
  std::string machine;  // "cpu, fp32, 2 threads", or what was given
  Roof roof;
  std::vector<Operation> operations;
  std::vector<MeasuredStep> measured;
  double optimizer_bytes = 0.0;  // state of the update rule
};

/// Numbers of the whole step, in one place for the text, the JSON and the tests.
struct Totals {
  double parameters = 0.0, forward_flops = 0.0, flops = 0.0, bytes = 0.0, kept = 0.0, seconds = 0.0;
  double compute_seconds = 0.0;  // share of `seconds` that arithmetic bounds
};
Totals totals(const std::vector<Operation>& operations, const Roof& roof);

/// Bytes of state that the update rule keeps for this model.
double optimizer_bytes(const StepShape& shape);

/// A table that fits 120 columns, then the totals; with `legend` a sentence for every column and kind of operation.
std::string explanation_text(const Explained& e, bool legend);
nlohmann::json explanation_json(const Explained& e);

}  // namespace eg
