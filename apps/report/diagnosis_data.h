// apps/report/diagnosis_data.h - diagnoses, spectra and attention maps as the page shows them (private to apps/report/).
#pragma once
#include "apps/report/groups.h"

namespace eg::report {

/// Diagnosis, spectra and attention maps of a method into its first run's entry: means over its runs. A page that held
/// them for every seed would be too large to open.
void add_diagnosis(const Method& method, int depth, Json& seed);

}  // namespace eg::report
