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
#include "apps/bench/rank_bench.h"
#include "apps/command.h"
#include "apps/run/kernel_record.h"
#include "apps/run/run_folder.h"
#include "apps/run/table.h"
#include "engine/collectives/launch.h"
#include "engine/memory.h"
#include "engine/parallel.h"

namespace eg {
namespace {

struct StepRow {
  std::string method;
  double milliseconds = 0.0, p95_milliseconds = 0.0, images_per_second = 0.0, gflops = 0.0;
  double peak_mib = 0.0, predicted_mib = 0.0;
  double loader_images_per_second = 0.0;
  int loader_workers = 0;
};

/// Whole training steps through the same Trainer that `train` uses, on batches that lie ready in the host's memory.
StepRow bench_step(const BenchOptions& o, const ResolvedMachine& machine, const std::string& method) {
  StepRig rig(o, machine, method);
  rig.warm_up();
  pool(machine.device).reset_peak();
  std::vector<double> times;
  for (int i = 0; i < o.steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    rig.step();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  StepRow row;
  row.method = method;
  row.milliseconds = times[times.size() / 2];
  row.p95_milliseconds = times[(95 * times.size() + 99) / 100 - 1];
  row.images_per_second = o.batch / row.milliseconds * 1e3;
  row.gflops = rig.vit().train_flops() * o.batch / row.milliseconds * 1e-6;
  row.loader_images_per_second = rig.loader_images_per_second(), row.loader_workers = rig.loader_workers();
  row.peak_mib = double(rig.trainer().peak_bytes()) / (1 << 20);
  const double parameters = double(rig.vit().parameter_count());
  row.predicted_mib =
      (rig.vit().activation_bytes(o.batch) + parameters * (8 + (machine.activation == DType::bf16 ? 2 : 0)) +
       double(rig.trainer().optimizer().state_bytes())) /
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
  const Launch launch = detect_launch();
  check(launch.size == 1, Kind::usage, [&] {
    return cat("bench times one process, and ", launch.how, " started ", launch.size,
               "; of several ranks it takes --trace or --weak-scaling");
  });
  const ResolvedMachine machine = resolve_machine(o.machine);
  const VitConfig vit = vit_of(o.model, o.classes, machine.activation);
  const BenchShape shape{o.batch,
                         vit.tokens(),
                         vit.dim,
                         vit.heads,
                         vit.hidden(),
                         o.classes,
                         std::int64_t(vit.channels) * vit.patch * vit.patch,
                         vit.parameter_count()};
  if (!o.ladder.empty()) check_ladder(machine.device, o.ladder, shape);
  std::cout << vit.describe() << "\nbatch " << o.batch << ", " << machine.device << ", " << machine.precision << ", "
            << num_threads() << " threads (" << runtime(machine.device).describe() << ")\n";
  const Ceilings top = measure_ceilings(machine.device);
  const bool bf16 = machine.activation == DType::bf16;
  const double peak = bf16 && top.bf16_gflops > 0 ? top.bf16_gflops : top.fp32_gflops;
  if (machine.device.type == DeviceType::emulated)
    std::cout << "The emulated device executes a GPU's kernels on this processor: its times say nothing about a GPU.\n";
  const auto figure = [](double value, int decimals, const char* unit) {
    return value > 0.0 ? cat(fixed(value, decimals), " ", unit) : std::string("-");
  };
  std::cout << "Ceilings of this machine, measured now (" << top.unit << "; -: not measured): fp32 "
            << figure(top.fp32_gflops, 0, "GFLOP/s") << ", bf16 " << figure(top.bf16_gflops, 0, "GFLOP/s") << ", copy "
            << figure(top.copy_gb_per_s, 1, "GB/s") << ", triad " << figure(top.triad_gb_per_s, 1, "GB/s") << "\n\n";
  nlohmann::json report = {{"device", to_string(machine.device)},
                           {"precision", machine.precision},
                           {"kernels_mode", to_string(machine.kernels)},
                           {"threads", num_threads()},
                           {"processor", runtime(machine.device).describe()},
                           {"batch", o.batch},
                           {"model", vit.describe()},
                           {"ceilings",
                            {{"fp32_gflops", top.fp32_gflops},
                             {"bf16_gflops", top.bf16_gflops},
                             {"copy_gb_per_s", top.copy_gb_per_s},
                             {"triad_gb_per_s", top.triad_gb_per_s}}}};
  if (!o.ladder.empty()) {
    const std::string text = bench_ladder(machine.device, o.ladder, shape, top, o.seconds);
    std::cout << text;
    report["ladder"] = {{"name", o.ladder}, {"text", text}};
    if (!o.json.empty()) write_json(o.json, report);
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
    std::cout << table.text() << "A share above 100% means that the data stayed in the caches"
              << (machine.device.type == DeviceType::cuda
                      ? ", or that a product by warpgroups went past the ceiling of mma.sync.\n\n"
                      : ".\n\n");
  }
  if (!o.kernels_only) {
    TextTable table(
        {"training step", "ms", "95% within ms", "images/s", "GFLOP/s", "of ceiling", "memory MiB", "predicted MiB"});
    std::string list = o.methods, loader;
    for (const std::string& method : split_list(list)) {
      const StepRow r = bench_step(o, machine, method);
      table.add_row({r.method, fixed(r.milliseconds, 1), fixed(r.p95_milliseconds, 1), fixed(r.images_per_second, 1),
                     fixed(r.gflops, 1), peak > 0 ? fixed(100 * r.gflops / peak, 0) + "%" : "-", fixed(r.peak_mib, 0),
                     fixed(r.predicted_mib, 0)});
      report["steps"].push_back({{"method", r.method},
                                 {"ms", r.milliseconds},
                                 {"p95_ms", r.p95_milliseconds},
                                 {"timed_steps", o.steps},
                                 {"images_per_second", r.images_per_second},
                                 {"gflops", r.gflops},
                                 {"ceiling_share", peak > 0 ? r.gflops / peak : 0.0},
                                 {"memory_mib", r.peak_mib},
                                 {"predicted_mib", r.predicted_mib}});
      if (!loader.empty()) continue;
      loader = cat(fixed(r.loader_images_per_second, 0), " images/s on ", r.loader_workers, " thread",
                   r.loader_workers == 1 ? "" : "s");
      report["loader"] = {{"images_per_second", r.loader_images_per_second}, {"workers", r.loader_workers}};
    }
    std::cout << table.text() << "The steps' batches were made before: these procedural images, not augmented, at "
              << loader << ".\n";
  }
  if (!machine.device.is_host())
    if (const std::vector<KernelChoice> made = kernel_choices(machine.device).made(); !made.empty()) {
      std::cout << "\nKernels chosen (--kernels " << to_string(machine.kernels) << ")\n" << kernel_table_text(made);
      for (const KernelChoice& c : made) {
        nlohmann::json times;
        for (const KernelTime& t : c.times)
          times[t.name] = t.refused.empty() ? nlohmann::json(t.milliseconds) : nlohmann::json(t.refused);
        report["choices"].push_back({{"call", c.call}, {"kernel", c.chosen}, {"from", c.origin}, {"ms", times}});
      }
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

void add_scaling_options(CLI::App& sub, BenchOptions& o) {
  constexpr const char* group = "Several ranks";
  sub.add_option(
         "--trace", o.trace,
         "Write --steps steps of the first of --methods as Chrome trace JSON (chrome://tracing, ui.perfetto.dev) "
         "and print what of them is communication")
      ->group(group);
  sub.add_flag("--weak-scaling", o.weak_scaling,
               "Under mpirun: one rank alone, all at once without a word, all together, in turns")
      ->group(group);
  sub.add_option("--rounds", o.rounds, "Rounds of --weak-scaling, each of --steps steps of all three")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000))
      ->group(group);
  sub.add_option("--scaling", o.scaling_files,
                 "Predict the efficiency of more ranks: from the step and the sums of a --trace file, from the step of "
                 "one and the sums of a second, or, without a file, from --step-ms and --backward-ms of --model")
      ->expected(0, 2)
      ->group(group);
  sub.add_option("--scaling-ranks", o.scaling_ranks, "Numbers of ranks to predict")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group(group);
  sub.add_option("--node-ranks", o.node_ranks, "Ranks on a node")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group(group);
  const auto figure = [&](const char* name, double& value, double least, const char* help) {
    sub.add_option(name, value, help)->check(number_in(least, 1e9))->group(group);
  };
  figure("--step-ms", o.step_ms, 1e-6,
         "A step on one rank, where there is no trace; gradients are then bf16 unless --precision fp32");
  figure("--backward-ms", o.backward_ms, 1e-6, "Backward's part of it; blocks take equal parts of that");
  figure("--node-gb-per-s", o.node_gb_per_s, 1e-6,
         "A rank's link inside a node, each direction, 1e9 bytes (default: the trace's sums, else 460, NVLink)");
  figure("--node-latency-us", o.node_latency_us, 0.0, "A message's latency there (default: the trace's, else 4)");
  figure("--network-gb-per-s", o.network_gb_per_s, 1e-6, "A rank's link between nodes (default: 50, of 400 Gb/s)");
  figure("--network-latency-us", o.network_latency_us, 0.0, "A message's latency there (default: 10)");
}

}  // namespace

void add_bench_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<BenchOptions>();
  auto* sub = app.add_subcommand("bench", "Time kernels and whole training steps against what this machine can do");
  sub->description(
      "Measures this machine's ceilings, then every kernel at the shapes of one model, then whole training steps.\n"
      "Times are medians; 'of ceiling' is the attainable time over the measured one. A step's batch lies ready in the "
      "host's "
      "memory; its copy to the device is part of the step, making it is not. Example:\n\n"
      "  evergrad bench --model vit-ti --image-size 32 --patch 4 --batch 64 --threads 2\n\n"
      "Under mpirun, --trace and --weak-scaling say what several ranks cost; --scaling predicts what more of them "
      "would.");
  sub->add_option("--batch", o->batch, "Images per step (of each rank)")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  sub->add_option("--classes", o->classes, "Outputs of the head")->capture_default_str()->check(CLI::Range(1, 1000000));
  sub->add_option("--methods", o->methods, "Methods whose whole step is timed")->capture_default_str();
  sub->add_option("--clip-norm", o->clip_norm,
                  "Clip the gradient's global norm to this (0: never, which arrow:update=backward asks for)")
      ->capture_default_str()
      ->check(number_in(0.0, 1e9));
  sub->add_option("--steps", o->steps, "Timed steps per method, after ten to warm up")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  sub->add_option("--filter", o->filter, "Only kernels whose name contains this");
  sub->add_option("--seconds", o->seconds, "Time spent on each kernel")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 60.0));
  sub->add_flag("--kernels-only", o->kernels_only, "Single kernels only, no whole steps");
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
  add_scaling_options(*sub, *o);
  add_rank_options(*sub, o->ranks, true);
  sub->callback([o, sub, &run] {
    run = [o, sub] {
      o->scaling = sub->count("--scaling") > 0;
      std::erase_if(o->scaling_files, [](const std::string& file) { return file.empty(); });  // --scaling alone
      o->ranks.config = shared_flags(*sub);
      const int modes = int(!o->trace.empty()) + int(o->weak_scaling) + int(o->scaling);
      check(modes <= 1, Kind::usage,
            [] { return std::string("--trace, --weak-scaling and --scaling are three commands; give one of them"); });
      if (o->scaling) return bench_scaling(*o);
      if (o->weak_scaling) return bench_weak_scaling(*o);
      return o->trace.empty() ? bench(*o) : bench_trace(*o);
    };
  });
}

}  // namespace eg
