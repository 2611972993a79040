// apps/commands/explain.cpp - `evergrad explain`: what a training step costs, before it is run, or one step in numbers.
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench/ceilings.h"
#include "apps/command.h"
#include "apps/explain/table.h"
#include "apps/explain/trace.h"
#include "apps/run/run_folder.h"
#include "apps/setup.h"
#include "engine/cpu/features.h"
#include "engine/parallel.h"

namespace eg {
namespace {

struct ExplainOptions {
  ModelOptions model;
  MachineOptions machine;
  std::string method = "adamw", ceilings, bench, json;
  int batch = 64, classes = 0;
  double tflops = 0.0, gbps = 0.0;
  bool no_legend = false, trace = false;
};

nlohmann::json read_json(const char* flag, const std::string& path) {
  std::ifstream in(path);
  check(bool(in), Kind::io, [&] { return cat(flag, " ", path, ": cannot be read"); });
  try {
    return nlohmann::json::parse(in);
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::format, cat(flag, " ", path, ": not a JSON file of evergrad bench --json: ", e.what()));
  }
}

/// The ceilings that a file of `evergrad bench --json` or `evergrad explain --json` holds.
Roof roof_of(const char* flag, const std::string& path, const nlohmann::json& file, bool bf16) {
  try {
    const nlohmann::json& c = file.at("ceilings");
    Roof roof{.source = cat("from ", path)};
    if (c.contains("gflops")) {
      roof.gflops = c.at("gflops"), roof.gb_per_s = c.at("gb_per_s");
    } else {
      const double narrow = c.at("bf16_gflops");
      roof.gflops = bf16 && narrow > 0 ? narrow : c.at("fp32_gflops").get<double>();
      roof.gb_per_s = c.at("copy_gb_per_s");
    }
    check(roof.gflops >= 0.0 && roof.gb_per_s > 0.0, Kind::format,
          [&] { return cat(flag, " ", path, ": a ceiling of ", roof.gb_per_s, " GB/s bounds nothing"); });
    return roof;
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::format, cat(flag, " ", path, ": no ceilings of evergrad bench --json or explain --json: ", e.what()));
  }
}

Roof measured_roof(const ResolvedMachine& machine) {
  const Ceilings top = measure_ceilings(machine.device);
  const bool narrow = machine.activation == DType::bf16 && top.bf16_gflops > 0;
  const bool tiles = machine.device == kCpu && machine.activation == DType::bf16 && cpu::features().amx_bf16;
  return {narrow ? top.bf16_gflops : top.fp32_gflops, top.copy_gb_per_s,
          cat("measured now, ", top.unit, tiles ? "; products in AMX tiles can be faster than this" : "")};
}

/// A machine that one does not have: its ceilings are given, so nothing here must be able to run on it.
ResolvedMachine imagined(const MachineOptions& o) {
  ResolvedMachine m;
  m.device = parse_device(o.device);
  const bool host = m.device.is_host();
  m.precision = o.precision == "auto" ? host ? "fp32" : "bf16" : o.precision;
  m.activation = m.precision == "bf16" ? DType::bf16 : DType::f32;
  return m;
}

/// What `evergrad bench --json` measured of this very step. Throws Error{usage} when it was another one.
std::vector<MeasuredStep> measured_steps(const std::string& path, const nlohmann::json& file, const Explained& e,
                                         const std::string& precision) {
  try {
    const std::string model = file.at("model"), with = file.at("precision");
    const std::int64_t batch = file.at("batch");
    check(model == e.shape.vit.describe() && batch == e.shape.batch && with == precision, Kind::usage, [&] {
      return cat("--bench ", path, " measured another step:\n  ", model, ", batch ", batch, ", ", with, "\nand not\n  ",
                 e.shape.vit.describe(), ", batch ", e.shape.batch, ", ", precision);
    });
    std::vector<MeasuredStep> steps;
    for (const auto& s : file.value("steps", nlohmann::json::array()))
      steps.push_back({s.at("method").get<std::string>(), s.at("ms").get<double>()});
    check(!steps.empty(), Kind::usage,
          [&] { return cat("--bench ", path, " holds no whole step; run evergrad bench without --kernels-only"); });
    return steps;
  } catch (const nlohmann::json::exception& error) {
    fail(Kind::format, cat("--bench ", path, ": not a file of evergrad bench --json: ", error.what()));
  }
}

int explain(ExplainOptions o, bool patch_given) {
  const bool large = o.model.image_size >= 128;
  if (!patch_given) o.model.patch = large && o.model.image_size % 16 == 0 ? 16 : 4;
  if (o.classes == 0) o.classes = large ? 1000 : 100;
  check((o.tflops > 0.0) == (o.gbps > 0.0), Kind::usage,
        [] { return std::string("--tflops and --gbps go together: both ceilings of the machine"); });
  const bool given = o.tflops > 0.0 || !o.ceilings.empty();
  const ResolvedMachine machine = given ? imagined(o.machine) : resolve_machine(o.machine);
  const bool bf16 = machine.activation == DType::bf16;

  Explained e;
  e.shape.vit = vit_of(o.model, o.classes, machine.activation);
  e.shape.batch = o.batch;
  e.shape.narrow_gradients = !machine.device.is_host();
  e.shape.method = parse_method(o.method);
  e.operations = training_step(e.shape);
  e.optimizer_bytes = optimizer_bytes(e.shape);
  e.machine = cat(machine.device, ", ", machine.precision);
  const nlohmann::json bench = o.bench.empty() ? nlohmann::json() : read_json("--bench", o.bench);
  if (!o.bench.empty()) e.measured = measured_steps(o.bench, bench, e, machine.precision);
  if (o.tflops > 0.0)
    e.roof = {o.tflops * 1e3, o.gbps, "given"};
  else if (!o.ceilings.empty())
    e.roof = roof_of("--ceilings", o.ceilings, read_json("--ceilings", o.ceilings), bf16);
  else if (!o.bench.empty())
    e.roof = roof_of("--bench", o.bench, bench, bf16);
  else
    e.roof = measured_roof(machine), e.machine += cat(", ", num_threads(), " threads");
  std::cout << explanation_text(e, !o.no_legend);
  if (!o.json.empty()) write_json(o.json, explanation_json(e));
  return 0;
}

}  // namespace

void add_explain_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<ExplainOptions>();
  auto* sub =
      app.add_subcommand("explain", "What a training step costs, operation by operation; or one step in numbers");
  sub->description(
      "Counts one training step from its shapes, without running it: for every operation its parameters, arithmetic,\n"
      "memory traffic and kept activations, and the time below which this machine cannot be, from ceilings measured\n"
      "now. A sentence explains every column and every kind of operation. Images of 128 pixels and more have patches\n"
      "of 16 pixels and 1000 classes, smaller ones 4 and 100, unless --patch and --classes say otherwise. Examples:\n\n"
      "  evergrad explain --model vit-b --image-size 224 --batch 256\n"
      "  evergrad explain --model vit-b --image-size 224 --batch 256 --device cuda:0 --tflops 790 --gbps 3000   (an "
      "H100)\n"
      "  evergrad bench --json bench.json && evergrad explain --model vit-ti --batch 64 --bench bench.json\n\n"
      "With --trace one image is followed through one real training step of a small network on this processor, and\n"
      "every number on its way is printed, the same on every run: docs/tour.md reads along.\n\n"
      "  evergrad explain --trace");
  sub->add_option("--batch", o->batch, "Images per step")->capture_default_str()->check(CLI::Range(1, 1 << 24));
  sub->add_option("--classes", o->classes, "Outputs of the head (0: 1000 or 100, by the image's size)")
      ->check(CLI::Range(0, 1000000));
  sub->add_option("--method", o->method,
                  "Update rule with its options: arrow, or any that keeps moments alone (adamw, adam, sgd, upgd)")
      ->capture_default_str();
  sub->add_option("--tflops", o->tflops,
                  "Arithmetic ceiling of a machine that is not here, 10^12 operations per second")
      ->check(number_in(1e-6, 1e9));
  sub->add_option("--gbps", o->gbps, "Its memory speed, 10^9 bytes per second, read and written")
      ->check(number_in(1e-6, 1e9));
  sub->add_option("--ceilings", o->ceilings, "Take the ceilings from this file of evergrad bench --json");
  sub->add_option(
      "--bench", o->bench,
      "Say how far the steps that evergrad bench --json measured are above the floor; their ceilings are used");
  sub->add_option("--json", o->json, "Also write every number into this file");
  sub->add_flag("--no-legend", o->no_legend, "Leave out the sentences");
  sub->add_flag("--trace", o->trace, "Follow one image through one training step of a small network, in numbers");
  add_model_options(*sub, o->model);
  add_machine_options(*sub, o->machine);
  sub->callback([o, sub, &run] {
    run = [o, sub] {
      if (!o->trace) return explain(*o, sub->get_option("--patch")->count() > 0);
      for (const CLI::Option* option : sub->get_options([](const CLI::Option* x) { return x->count() > 0; }))
        check(option->get_name() == "--trace" || option->get_name() == "--json", Kind::usage, [&] {
          return cat(option->get_name(), " does not go with --trace, whose network and stream are fixed so that ",
                     "docs/tour.md can read along; only --json does");
        });
      return trace_step(o->json);
    };
  });
}

}  // namespace eg
