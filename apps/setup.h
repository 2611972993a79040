// apps/setup.h - from flags to the objects of a run: machine, data, model, loader; and back into config.toml.
#pragma once
#include <memory>
#include <string>

#include "apps/options.h"
#include "apps/run/config.h"
#include "data/loader.h"
#include "layers/vit.h"

namespace eg {

struct ResolvedMachine {
  Device device;
  std::string precision;  // "fp32" or "bf16", never "auto"
  DType activation = DType::f32;
};

/// Sets the thread count, checks that the device exists, resolves --precision auto: bf16 where this processor
/// multiplies bf16 matrices faster than fp32 ones. Throws Error{usage|device}.
ResolvedMachine resolve_machine(const MachineOptions& o);
std::shared_ptr<const Dataset> open_data(const DataOptions& o);
VitConfig vit_of(const ModelOptions& o, std::int64_t classes, DType activation);
LoaderConfig base_loader(const DataOptions& data, const ModelOptions& model, std::int64_t batch, std::int64_t classes,
                         bool training);
/// Every shared flag under its own name.
void write_shared(Config& c, const DataOptions& d, const TrainingOptions& t, const ModelOptions& m,
                  const ResolvedMachine& machine);

}  // namespace eg
