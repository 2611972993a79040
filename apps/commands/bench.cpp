// apps/commands/bench.cpp - `evergrad bench`: kernels and whole steps against ceilings measured in the same run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench/ceilings.h"
#include "apps/bench/kernel_bench.h"
#include "apps/bench/ladder_bench.h"
#include "apps/command.h"
#include "apps/run/run_folder.h"
#include "apps/run/table.h"
#include "apps/setup.h"
#include "apps/trainer.h"
#include "engine/memory.h"
#include "engine/parallel.h"

namespace eg {
namespace {

struct BenchOptions {
  ModelOptions model;
  MachineOptions machine;
  std::string filter, json, compare, ladder, methods = "adamw,arrow";
  int batch = 64, classes = 100, steps = 12;
  double seconds = 0.3;
  bool kernels_only = false, step_only = false;
};

struct StepRow {
  std::string method;
  double milliseconds = 0.0, images_per_second = 0.0, gflops = 0.0, wait_share = 0.0;
  double peak_mib = 0.0, predicted_mib = 0.0;
};

/// Whole training steps through the same Trainer and Loader that `train` uses, data waiting included.
StepRow bench_step(const BenchOptions& o, const ResolvedMachine& machine, const std::string& method) {
  DataOptions data_options;
  data_options.augment = "none";
  const std::shared_ptr<const Dataset> data = open_data(data_options);
  const Task task = whole_dataset(*data, o.classes, std::int64_t(o.batch) * 4);
  TrainerConfig c;
  c.vit = vit_of(o.model, o.classes, machine.activation);
  c.device = machine.device;
  c.method = parse_method(method);
  const ChannelStats s = channel_stats(*data, task.train, {o.model.channels, o.model.image_size});
  c.mean = s.mean, c.stddev = s.stddev;
  Trainer trainer(c);
  LoaderConfig lc = base_loader(data_options, o.model, o.batch, o.classes, true);
  Loader loader(data, task.train, task.transform, lc);
  const auto next = [&] {
    const Batch* b = loader.next();
    return b ? b : loader.next();
  };
  // Warm up past ARROW's window (8 steps of the base optimizer), the pool's first allocations and the loader's cache.
  for (int i = 0; i < 10; ++i) trainer.step(*next(), 1.0);
  pool(machine.device).reset_peak();
  std::vector<double> times;
  const double waited = loader.wait_seconds();
  double total = 0.0;
  for (int i = 0; i < o.steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    trainer.step(*next(), 1.0);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + std::ptrdiff_t(times.size() / 2), times.end());
  StepRow row;
  row.method = method;
  row.milliseconds = times[times.size() / 2];
  row.images_per_second = o.batch / row.milliseconds * 1e3;
  row.gflops = c.vit.train_flops() * o.batch / row.milliseconds * 1e-6;
  row.wait_share = (loader.wait_seconds() - waited) * 1e3 / total;
  row.peak_mib = double(trainer.peak_bytes()) / (1 << 20);
  const double parameters = double(c.vit.parameter_count());
  row.predicted_mib =
      (c.vit.activation_bytes(o.batch) + parameters * (8 + (machine.activation == DType::bf16 ? 2 : 0)) +
       double(trainer.optimizer().state_bytes())) /
      (1 << 20);
  return row;
}

nlohmann::json read_report(const std::string& path) {
  std::ifstream in(path);
  check(bool(in), Kind::io, [&] { return cat("--compare ", path, ": cannot be read"); });
  try {
    return nlohmann::json::parse(in);
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::format, cat("--compare ", path, ": not a report of evergrad bench --json: ", e.what()));
  }
}

int bench(const BenchOptions& o) {
  const ResolvedMachine machine = resolve_machine(o.machine);
  const VitConfig vit = vit_of(o.model, o.classes, machine.activation);
  std::cout << vit.describe() << "\nbatch " << o.batch << ", " << machine.device << ", " << machine.precision << ", "
            << num_threads() << " threads (" << runtime(machine.device).describe() << ")\n";
  const Ceilings top = measure_ceilings(machine.device);
  const bool bf16 = machine.activation == DType::bf16;
  const double peak = bf16 && top.bf16_gflops > 0 ? top.bf16_gflops : top.fp32_gflops;
  if (machine.device.type == DeviceType::emulated)
    std::cout << "The emulated device executes a GPU's kernels on this processor: its times say nothing about a GPU.\n";
  std::cout << "Ceilings of this machine, measured now (" << top.unit << "): fp32 " << fixed(top.fp32_gflops, 0)
            << " GFLOP/s, bf16 " << fixed(top.bf16_gflops, 0) << " GFLOP/s, copy " << fixed(top.copy_gb_per_s, 1)
            << " GB/s, triad " << fixed(top.triad_gb_per_s, 1) << " GB/s\n\n";
  nlohmann::json report = {{"device", to_string(machine.device)},
                           {"precision", machine.precision},
                           {"threads", num_threads()},
                           {"processor", runtime(machine.device).describe()},
                           {"batch", o.batch},
                           {"model", vit.describe()},
                           {"ceilings",
                            {{"fp32_gflops", top.fp32_gflops},
                             {"bf16_gflops", top.bf16_gflops},
                             {"copy_gb_per_s", top.copy_gb_per_s},
                             {"triad_gb_per_s", top.triad_gb_per_s}}}};
  const BenchShape shape{o.batch,
                         vit.tokens(),
                         vit.dim,
                         vit.heads,
                         vit.hidden(),
                         o.classes,
                         std::int64_t(vit.channels) * vit.patch * vit.patch,
                         vit.parameter_count()};
  if (!o.ladder.empty()) {
    std::cout << bench_ladder(machine.device, o.ladder, shape, top, o.seconds);
    return 0;
  }
  if (!o.step_only) {
    std::vector<BenchRow> rows = bench_kernels(machine.device, machine.activation, shape, o.filter, o.seconds);
    TextTable table({"kernel", "ms", "GFLOP/s", "GB/s", "bound", "of ceiling"});
    for (BenchRow& r : rows) {
      const double compute_ms = peak > 0 ? r.flops / peak * 1e-6 : 0.0, memory_ms = r.bytes / top.copy_gb_per_s * 1e-6;
      r.bound = compute_ms > memory_ms ? "compute" : "memory";  // without an arithmetic ceiling: the copy's share
      r.ceiling_share = std::max(compute_ms, memory_ms) / r.milliseconds;
      table.add_row({r.name, fixed(r.milliseconds, 3), fixed(r.flops / r.milliseconds * 1e-6, 1),
                     fixed(r.bytes / r.milliseconds * 1e-6, 1), r.bound, fixed(100 * r.ceiling_share, 0) + "%"});
      report["kernels"].push_back({{"name", r.name},
                                   {"ms", r.milliseconds},
                                   {"flops", r.flops},
                                   {"bytes", r.bytes},
                                   {"bound", r.bound},
                                   {"ceiling_share", r.ceiling_share}});
    }
    std::cout << table.text() << "A share above 100% means that the data stayed in the caches.\n\n";
  }
  if (!o.kernels_only) {
    TextTable table(
        {"training step", "ms", "images/s", "GFLOP/s", "of ceiling", "data wait", "memory MiB", "predicted MiB"});
    std::string list = o.methods;
    for (const std::string& method : split_list(list)) {
      const StepRow r = bench_step(o, machine, method);
      table.add_row({r.method, fixed(r.milliseconds, 1), fixed(r.images_per_second, 1), fixed(r.gflops, 1),
                     peak > 0 ? fixed(100 * r.gflops / peak, 0) + "%" : "-", fixed(100 * r.wait_share, 2) + "%",
                     fixed(r.peak_mib, 0), fixed(r.predicted_mib, 0)});
      report["steps"].push_back({{"method", r.method},
                                 {"ms", r.milliseconds},
                                 {"images_per_second", r.images_per_second},
                                 {"gflops", r.gflops},
                                 {"ceiling_share", peak > 0 ? r.gflops / peak : 0.0},
                                 {"data_wait_share", r.wait_share},
                                 {"memory_mib", r.peak_mib},
                                 {"predicted_mib", r.predicted_mib}});
    }
    std::cout << table.text();
  }
  if (!o.compare.empty()) {
    const nlohmann::json before = read_report(o.compare);
    TextTable table({"compared with " + o.compare, "before ms", "now ms", "speed-up"});
    for (const char* part : {"kernels", "steps"})
      for (const auto& now : report.value(part, nlohmann::json::array()))
        for (const auto& then : before.value(part, nlohmann::json::array())) {
          const char* const key = std::string(part) == "steps" ? "method" : "name";
          if (now.at(key) != then.at(key)) continue;
          const double a = then.at("ms"), b = now.at("ms");
          table.add_row({now.at(key).get<std::string>(), fixed(a, 3), fixed(b, 3), fixed(a / b, 2)});
        }
    std::cout << '\n' << table.text();
  }
  if (!o.json.empty()) write_json(o.json, report);
  return 0;
}

}  // namespace

void add_bench_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<BenchOptions>();
  auto* sub = app.add_subcommand("bench", "Time kernels and whole training steps against what this machine can do");
  sub->description(
      "Measures this machine's ceilings, then every kernel at the shapes of one model, then whole training steps.\n"
      "Times are medians; 'of ceiling' is the attainable time over the measured one. Example:\n\n"
      "  evergrad bench --model vit-ti --image-size 32 --patch 4 --batch 64 --threads 2");
  sub->add_option("--batch", o->batch, "Images per step")->capture_default_str()->check(CLI::Range(1, 65536));
  sub->add_option("--classes", o->classes, "Outputs of the head")->capture_default_str()->check(CLI::Range(1, 1000000));
  sub->add_option("--methods", o->methods, "Methods whose whole step is timed")->capture_default_str();
  sub->add_option("--steps", o->steps, "Timed steps per method, after ten to warm up")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  sub->add_option("--filter", o->filter, "Only kernels whose name contains this");
  sub->add_option("--seconds", o->seconds, "Time spent on each kernel")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 60.0));
  sub->add_flag("--kernels", o->kernels_only, "Kernels only");
  sub->add_flag("--step", o->step_only, "Whole steps only");
  sub->add_option(
         "--ladder", o->ladder,
         "Climb a teaching ladder instead: matmul, attention or layer_norm, one idea per rung (--device emulated: "
         "counted and checked, not timed)")
      ->check(CLI::IsMember({"matmul", "attention", "layer_norm"}));
  sub->add_option("--json", o->json, "Also write everything as JSON");
  sub->add_option("--compare", o->compare, "Print speed-ups over an earlier --json file");
  add_model_options(*sub, o->model);
  add_machine_options(*sub, o->machine);
  sub->callback([o, &run] { run = [o] { return bench(*o); }; });
}

}  // namespace eg
