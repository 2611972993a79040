// apps/diagnosis/inspection_tables.h - what `evergrad diagnose` prints.
#pragma once
#include <vector>

#include "apps/diagnosis/inspection.h"

namespace eg {

/// Tables by block: features and units, attention and circuits, matrices and gradients.
void print_blocks(const Diagnosis& d, int depth);
/// What accuracy loses when a module is as it was before the task; nothing where that was not measured.
void print_restores(const Diagnosis& d, int depth);
/// What accuracy loses when the task is learned again with a module held fast; nothing where that was not measured.
void print_frozen(const Diagnosis& d);
/// What a linear classifier reads off the features, task by task; nothing where that was not measured.
void print_probes(const Diagnosis& d, const std::vector<ProbedTask>& tasks);
void print_model(const Diagnosis& d);

}  // namespace eg
