// apps/run/kernel_record.cpp - see kernel_record.h.
#include "apps/run/kernel_record.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

#include "apps/run/config.h"
#include "apps/run/table.h"
#include "apps/setup.h"
#include "engine/error.h"
#include "engine/kernel_cache.h"

namespace eg {
namespace {

constexpr std::string_view kIs = " = ";

KernelChoice choice_of(const std::string& line, const std::filesystem::path& file) {
  const std::size_t at = line.rfind(kIs);
  check(at != std::string::npos && at > 0, Kind::format, [&] {
    return cat(file.string(), ": ", kKernelChoicesKey, " holds '", line, "', which is not 'call = kernel'");
  });
  return {line.substr(0, at), line.substr(at + kIs.size()), "this run", {}};
}

std::vector<std::string> lines_of(const Config& config, const std::filesystem::path& file) {
  std::vector<std::string> lines;
  const ConfigValue* const value = config.find(kKernelChoicesKey);
  if (!value) return lines;
  const auto* const list = std::get_if<std::vector<ConfigScalar>>(value);
  const bool good = list && std::all_of(list->begin(), list->end(),
                                        [](const ConfigScalar& v) { return std::holds_alternative<std::string>(v); });
  check(good, Kind::format,
        [&] { return cat(file.string(), ": ", kKernelChoicesKey, " is not a list of texts 'call = kernel'"); });
  for (const ConfigScalar& v : *list) lines.push_back(std::get<std::string>(v));
  return lines;
}

}  // namespace

namespace {

/// What the first rank's cache holds for its device, on all ranks; nothing where one of them has another device.
std::map<std::string, std::string> known_to_all(Device device, Collectives& ranks) {
  const std::string& identity = kernel_choices(device).identity();
  nlohmann::json mine{{"identity", identity}};
  if (ranks.rank() == 0) mine["chosen"] = read_kernel_cache(cache_folder(), identity).chosen;
  const std::vector<std::string> all = ranks.all_gather_bytes(mine.dump());
  for (const std::string& other : all)
    if (nlohmann::json::parse(other).at("identity") != identity) return {};
  return nlohmann::json::parse(all[0]).at("chosen");
}

}  // namespace

KernelRecord::KernelRecord(std::filesystem::path config, Device device, KernelMode mode, Collectives& ranks)
    : config_(std::move(config)), device_(device), writes_(ranks.rank() == 0) {
  if (device_.is_host()) return;
  KernelChoices::Start start;
  start.mode = mode, start.cache = cache_folder();
  if (ranks.size() > 1 && mode == KernelMode::automatic)
    start.measures = false, start.known = known_to_all(device_, ranks);
  std::error_code error;
  if (mode != KernelMode::hand && std::filesystem::exists(config_, error)) {
    const Config c = Config::read(config_);
    lines_ = lines_of(c, config_);
    for (const std::string& line : lines_) start.pinned.push_back(choice_of(line, config_));
    if (!lines_.empty() && c.find(kKernelDeviceKey)) other_device_ = c.text(kKernelDeviceKey);
    if (other_device_ == kernel_choices(device_).identity()) other_device_.clear();
  }
  start.chosen = [this](const KernelChoice& choice) { keep(choice); };
  kernel_choices(device_).start(std::move(start));
}

KernelRecord::~KernelRecord() {
  if (!device_.is_host()) kernel_choices(device_).start({});
}

void KernelRecord::keep(const KernelChoice& choice) {
  unseen_.push_back(choice);
  const std::string line = cat(choice.call, kIs, choice.chosen);
  if (!writes_ || std::find(lines_.begin(), lines_.end(), line) != lines_.end()) return;
  lines_.push_back(line);
  Config c = Config::read(config_);
  if (!c.find(kKernelDeviceKey)) c.set(kKernelDeviceKey, kernel_choices(device_).identity());
  c.set(kKernelChoicesKey, lines_);
  c.write(config_);
}

std::string KernelRecord::news() {
  if (unseen_.empty()) return {};
  std::string text = "kernels chosen (--kernels), kept in " + config_.string() + ":\n" + kernel_table_text(unseen_);
  if (!other_device_.empty())
    text += cat("The run began on another device (", other_device_, ", now ", kernel_choices(device_).identity(),
                "): its numbers go on to rounding, not to the bit.\n");
  unseen_.clear(), other_device_.clear();
  text.pop_back();  // whoever shows it ends the line
  return text;
}

std::string kernel_table_text(const std::vector<KernelChoice>& choices) {
  TextTable table({"call", "kernel", "ms", "ours ms", "from"});
  for (const KernelChoice& c : choices) {
    const auto at =
        std::find_if(c.times.begin(), c.times.end(), [&](const KernelTime& t) { return t.name == c.chosen; });
    const bool timed = at != c.times.end();
    table.add_row({c.call, c.chosen, timed ? fixed(at->milliseconds, 4) : "-",
                   timed ? fixed(c.times.front().milliseconds, 4) : "-", c.origin});
  }
  return table.text();
}

}  // namespace eg
