// apps/bench/scaling_bench.cpp - `evergrad bench --scaling`: figures in, the model's table and its assumptions out.
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/bench/rank_bench.h"
#include "apps/bench/scaling.h"
#include "apps/run/run_folder.h"
#include "apps/run/table.h"

namespace eg {
namespace {

std::string ms(double seconds) { return fixed(1e3 * seconds, 2); }
std::string percent(double share) { return fixed(100 * share, 1) + "%"; }

nlohmann::json read_trace(const std::string& file) {
  std::ifstream in(file);
  check(bool(in), Kind::io, [&] { return cat("--scaling ", file, ": cannot be read"); });
  try {
    return nlohmann::json::parse(in);
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::format, cat("--scaling ", file, ": not JSON, as evergrad bench --trace writes it: ", e.what()));
  }
}

/// A network of which only step and backward are known: its blocks take equal parts of backward.
StepProfile typed_profile(BenchOptions o) {
  check(o.step_ms > 0.0 && o.backward_ms > 0.0 && o.backward_ms <= o.step_ms, Kind::usage, [&] {
    return cat("--scaling without files needs --step-ms and, within it, --backward-ms: one rank's times; they are ",
               o.step_ms > 0.0 ? fixed(o.step_ms, 3) : "not given", " and ",
               o.backward_ms > 0.0 ? fixed(o.backward_ms, 3) : "not given",
               ". Or give a file of evergrad bench --trace");
  });
  resolve_model(o.model);
  const DType gradient = o.machine.precision == "fp32" ? DType::f32 : DType::bf16;
  Vit model = make_vit(vit_of(o.model, o.classes, gradient));
  const std::vector<Param*> params = parameters(model);
  ParamArena arena;
  arena.build(params, kCpu, gradient, true);
  const int depth = model.config.depth;
  const GradientBuckets layout(params, arena, depth, single_rank());
  StepProfile p;
  p.what = cat(model.config.describe(), ", gradients in ", gradient);
  p.device = "typed";
  p.step = o.step_ms * 1e-3, p.backward = o.backward_ms * 1e-3;
  for (const GradientBuckets::Bucket& b : layout.buckets()) {
    int last = depth;  // blocks are final from the last to the first, what lies outside of them at the end
    for (const int group : b.groups) last = std::min(last, group);
    const double ready = last == depth ? p.backward : p.backward * double(depth - last) / depth;
    p.buckets.push_back({double(b.elements()) * double(size_of(gradient)), 2, ready, 0.0});
  }
  return p;
}

struct Source {
  Link link;
  std::string from;
};

/// What was typed wins over what was measured, and that over what is merely published.
Source resolve(double latency_us, double gb_per_s, const Link& otherwise, const std::string& from) {
  Source s{otherwise, from};
  if (latency_us >= 0.0) s.link.latency = latency_us * 1e-6;
  if (gb_per_s > 0.0) s.link.bytes_per_second = gb_per_s * 1e9;
  const int typed = int(latency_us >= 0.0) + int(gb_per_s > 0.0);
  if (typed) s.from = typed == 2 ? "typed" : "partly typed, else " + from;
  return s;
}

std::string describe(const Source& s) {
  const double bytes = s.link.bytes_per_second;
  return cat(fixed(s.link.latency * 1e6, 2), " us a message, ",
             bytes < 1e9 ? fixed(bytes * 1e-6, 1) + " MB/s (" : fixed(bytes * 1e-9, 1) + " GB/s (", s.from, ")");
}

}  // namespace

int bench_scaling(const BenchOptions& o) {
  const bool files = !o.scaling_files.empty();
  check(!files || (o.step_ms < 0.0 && o.backward_ms < 0.0), Kind::usage, [&] {
    return cat("--step-ms and --backward-ms say what ", o.scaling_files.at(0), " already says; give one of the two");
  });
  check(o.scaling_files.size() <= 2, Kind::usage, [] {
    return std::string("--scaling takes two files at most: a trace whose step counts, and one whose sums do");
  });
  StepProfile p = files ? profile_from_json(read_trace(o.scaling_files[0]), o.scaling_files[0]) : typed_profile(o);
  StepProfile sums = p;
  if (o.scaling_files.size() == 2) sums = profile_from_json(read_trace(o.scaling_files[1]), o.scaling_files[1]);
  // One rank exchanges nothing, so its trace does not hold what is no bucket: at least the loss, which is a latency.
  if (p.ranks == 1) p.others = sums.ranks > 1 ? sums.others : std::vector<Message>{{0.0, 1, 0.0, 0.0}};

  Source inside{kNvlink, "published for 8 H200 over NVLink, not measured here"};
  const bool measured = sums.ranks > 1;
  if (measured && (o.node_latency_us < 0.0 || o.node_gb_per_s <= 0.0)) {
    double worst = 0.0;
    inside.link = fit_link(sums, &worst);
    inside.from = cat("measured on ", sums.ranks, " ranks, ", sums.device, "; off by ", percent(worst), " at most");
  }
  inside = resolve(o.node_latency_us, o.node_gb_per_s, inside.link, inside.from);
  const Source between =
      resolve(o.network_latency_us, o.network_gb_per_s, kAdapter, "assumed: 400 Gb/s per rank, not measured");
  const Cluster cluster{o.node_ranks, inside.link, between.link};

  double bytes = 0.0;
  for (const Message& m : p.buckets) bytes += m.bytes;
  std::cout << p.what << "\none rank's step " << ms(p.step) << " ms, " << ms(p.backward) << " of them backward ("
            << (files ? cat("measured on ", p.device) : "typed") << "); " << p.buckets.size() << " buckets, "
            << fixed(bytes / (1 << 20), 1) << " MiB, the last of " << fixed(p.buckets.back().bytes / (1 << 20), 1)
            << " MiB\ninside a node of " << o.node_ranks << ": " << describe(inside)
            << "\nbetween nodes: " << describe(between) << "\n\n";

  nlohmann::json json = {{"profile", to_json(p)}, {"predictions", nlohmann::json::array()}};
  TextTable table({"ranks", "sums by", "communication ms", "exposed ms", "step ms", "efficiency", "without overlap"});
  for (const int ranks : o.scaling_ranks)
    for (const SumBy by : {SumBy::deal, SumBy::ring, SumBy::tree}) {
      const bool one_node = ranks <= o.node_ranks;
      if (one_node && by != SumBy::deal) continue;
      const Prediction r = predict(p, ranks, by, cluster);
      const std::string name = one_node ? "any" : to_string(by);
      table.add_row({std::to_string(ranks), name, ms(r.communication), ms(r.exposed), ms(p.step + r.exposed),
                     percent(r.efficiency), percent(r.without_overlap)});
      json["predictions"].push_back({{"ranks", ranks},
                                     {"sums_by", name},
                                     {"communication_s", r.communication},
                                     {"exposed_s", r.exposed},
                                     {"efficiency", r.efficiency},
                                     {"without_overlap", r.without_overlap}});
    }
  std::cout << table.text();
  if (measured && p.ranks > 1) {
    const Prediction r = predict(p, p.ranks, SumBy::deal, {p.ranks, inside.link, between.link});
    std::cout << "Of the " << p.ranks << " ranks that were traced the model says "
              << ms(p.device == "cpu" ? p.step / r.without_overlap : p.step + r.exposed) << " ms a step; measured "
              << ms(p.measured) << " ms. It leaves out that ranks wait for each other.\n";
  }
  std::cout
      << "Predicted, not measured. Assumed: every rank keeps its images and its times; one sum at a time, in the "
         "order of the buckets;\nsums and arithmetic do not slow each other down; no rank is later than another; "
         "images are always there; all nodes are\nequal, full, and never share a cable. 'deal' is how evergrad adds "
         "up bf16 among up to 16 ranks, and everything in\ndeterministic mode and on cpu; ring and tree are NCCL's, "
         "which the rest takes. On cpu nothing overlaps: there the last\ncolumn counts.\n";
  if (!o.json.empty()) write_json(o.json, json);
  return 0;
}

}  // namespace eg
