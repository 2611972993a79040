// apps/run/kernel_record.h - the kernels that a run has chosen: written into its config.toml before they are first used, taken
// from there by a resumed run, and shown once.
//
// Kernels that compute the same differ in rounding, so that a run repeats its bits only with the same choices. A shape may
// appear at any time (the last, smaller batch of an epoch, a test), and the run may be killed at any time: whatever a
// checkpoint was computed with is in the file.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "engine/collectives/collectives.h"
#include "engine/kernel_choices.h"

namespace eg {

class KernelRecord {
 public:
  /// Begins the choices of this run. `config`: its config.toml, whose choices hold; the first of the ranks writes them. Several
  /// ranks measure nothing, because each would for itself and no file could hold all their choices: they take what a run of one
  /// rank has measured, as the first rank finds it in its cache, and the rule elsewhere. Throws Error{usage} that names a kernel of
  /// the file which this build lacks, Error{format} for an entry that is none. All ranks call it together.
  KernelRecord(std::filesystem::path config, Device device, KernelMode mode, Collectives& ranks);
  ~KernelRecord();
  KernelRecord(const KernelRecord&) = delete;
  KernelRecord& operator=(const KernelRecord&) = delete;

  /// What was chosen since the last call, for people; empty: nothing.
  std::string news();

 private:
  void keep(const KernelChoice& choice);

  const std::filesystem::path config_;
  const Device device_;
  const bool writes_;
  std::vector<std::string> lines_;    // as in the file
  std::vector<KernelChoice> unseen_;  // by news()
  std::string other_device_;          // where the file's choices were made, if that was not here
};

/// A table of choices: the call, the kernel, its time beside that of our own, and where the choice comes from.
std::string kernel_table_text(const std::vector<KernelChoice>& choices);

}  // namespace eg
