// apps/report/groups.h - which runs may be compared: folders of one protocol, their methods, their seeds (private to
// apps/report/).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "apps/report/numbers.h"

namespace eg::report {

/// A method of a group: its runs over seeds, from one or several folders.
struct Method {
  std::string name, settings;
  std::vector<std::pair<const RecordedRun*, std::size_t>> runs;  // with the folder's index
  bool fresh = false;
};

struct Group {
  std::vector<const RecordedFolder*> folders;
  std::vector<Method> methods;
};

/// Folders whose configurations differ in nothing but what is compared, where it ran and what was looked at.
std::vector<Group> grouped(const std::vector<RecordedFolder>& folders);

/// Accuracies of fresh networks by seed: of the fresh method that does best.
std::map<std::uint64_t, Values> fresh_accuracy(const Group& group);

}  // namespace eg::report
