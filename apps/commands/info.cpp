// apps/commands/info.cpp - `evergrad info`: devices, libraries, and what a missing library costs.
#include <cstdio>
#include <iostream>
#include <memory>
#include <utility>

#include "apps/command.h"
#include "apps/commands/info_ranks.h"
#include "engine/build_info.h"
#include "engine/device.h"
#include "optim/optimizer.h"

namespace eg {
namespace {

int info() {
  const BuildInfo b = build_info();
  std::cout << "evergrad " << b.version << " (" << b.build_type << (b.sanitizers.empty() ? "" : ", " + b.sanitizers)
            << ", " << b.compiler << ")\n\nDevices\n";
  for (const Device d : devices()) std::printf("  %-10s %s\n", to_string(d).c_str(), runtime(d).describe().c_str());
  std::cout << std::flush;
  for (const auto& [type, name] : {std::pair{DeviceType::emulated, "emulated"}, std::pair{DeviceType::cuda, "cuda:N"}})
    if (const std::string why = why_absent(type); !why.empty()) std::printf("  %-10s %s\n", name, why.c_str());
  std::fflush(stdout);
  std::printf("\nPlugins must be made for: %s\n\nLibraries in this build\n", b.abi.c_str());
  for (const std::string& line : b.with) std::printf("  %s\n", line.c_str());
  if (!b.without.empty()) std::printf("\nNot in this build, and what that costs\n");
  for (const std::string& line : b.without) std::printf("  %s\n", line.c_str());
  std::printf("\nMethods (evergrad continual --list-methods explains them)\n ");
  for (const MethodInfo& m : method_list()) std::printf(" %s", m.name.c_str());
  std::printf("\n");
  return 0;
}

}  // namespace

void add_info_command(CLI::App& app, std::function<int()>& run) {
  auto* sub = app.add_subcommand("info", "Devices, libraries, methods: what this binary can do on this machine");
  auto ranks = std::make_shared<RanksOptions>();
  add_ranks_options(*sub, *ranks);
  sub->callback([&run, ranks] { run = [ranks] { return ranks->show ? info_ranks(*ranks) : info(); }; });
}

}  // namespace eg
