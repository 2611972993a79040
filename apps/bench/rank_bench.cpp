// apps/bench/rank_bench.cpp - see rank_bench.h. The scaling model's command is in scaling_bench.cpp.
#include "apps/bench/rank_bench.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/bench/step_trace.h"
#include "apps/distributed/launch.h"
#include "apps/run/run_folder.h"
#include "apps/run/table.h"
#include "engine/collectives/agree.h"
#include "engine/parallel.h"

namespace eg {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string ms(double seconds) { return fixed(1e3 * seconds, 2); }

std::string first_method(const BenchOptions& o) { return split_list(o.methods).at(0); }

std::string heading(const BenchOptions& o, const ResolvedMachine& machine, const Collectives& ranks) {
  const VitConfig vit = vit_of(o.model, o.classes, machine.activation);
  return cat(vit.describe(), "\n", first_method(o), ", ", o.batch, " images per rank, ", ranks.size(),
             ranks.size() == 1 ? " rank" : " ranks over " + ranks.name(), ", ", machine.device, ", ", machine.precision,
             machine.zero > 0 && ranks.size() > 1 ? ", --zero 1" : "", ", ", num_threads(), " thread",
             num_threads() == 1 ? "" : "s", " per rank\n");
}

int trace(const BenchOptions& o, const std::shared_ptr<Collectives>& ranks) {
  ResolvedMachine machine = resolve_machine(o.machine, ranks->size());
  machine.record_steps = false;  // a replay passes no event that keeps its time
  std::cout << heading(o, machine, *ranks);
  Timeline timeline(machine.device);
  StepRig rig(o, machine, first_method(o), ranks->size() > 1 ? timeline.traced(ranks) : nullptr, &timeline);
  Trainer& trainer = rig.trainer();
  const ParamArena& arena = trainer.arena();
  timeline.name_buckets(trainer.buckets().buckets(), arena.grad, arena.work ? arena.work : arena.master);
  rig.warm_up();
  ranks->barrier();
  timeline.start();
  for (int i = 0; i < o.steps; ++i) {
    timeline.begin_step();
    rig.step();
    timeline.end_step();
    say_step(*ranks);
  }
  runtime(machine.device).synchronize({});

  StepTrace all;
  for (const std::string& text : ranks->all_gather_bytes(spans_to_text(timeline.spans())))
    all.ranks.push_back(spans_from_text(text));
  all.buckets = trainer.buckets().buckets(), all.depth = rig.vit().depth;
  all.element_bytes = std::int64_t(size_of(arena.grad.dtype()));
  if (ranks->rank() != 0) return 0;

  nlohmann::json json = all.chrome();
  const bool divided = machine.zero > 0 && ranks->size() > 1;
  std::vector<std::string> columns{"rank", "step ms", "forward", "backward", "update", "communication", "exposed"};
  if (divided) columns.insert(columns.end(), {"weights", "of them exposed"});
  TextTable table(columns);
  for (int rank = 0; rank < ranks->size(); ++rank) {
    const StepTimes t = all.median(rank);
    std::vector<std::string> row{std::to_string(rank), ms(t.step),          ms(t.forward), ms(t.backward),
                                 ms(t.update),         ms(t.communication), ms(t.exposed)};
    if (divided) row.insert(row.end(), {ms(t.weights), ms(t.weights_exposed)});
    table.add_row(row);
    json["otherData"]["ranks"].push_back({{"step_s", t.step},
                                          {"forward_s", t.forward},
                                          {"backward_s", t.backward},
                                          {"update_s", t.update},
                                          {"communication_s", t.communication},
                                          {"exposed_s", t.exposed},
                                          {"weights_s", t.weights},
                                          {"weights_exposed_s", t.weights_exposed}});
  }
  std::cout << '\n'
            << table.text() << "Medians of " << o.steps << " steps on batches made before, each column its own."
            << (divided
                    ? " 'weights': communication that gathers what other ranks have updated, beside the forward pass."
                    : "")
            << "\n\n";

  StepProfile profile = all.profile();
  profile.device = to_string(machine.device);
  profile.what = cat(rig.vit().describe(), ", ", o.batch, " images per rank, ", first_method(o));
  TextTable buckets({"bucket", "MiB", "ready ms", "sum ms"});
  for (std::size_t b = 0; b < profile.buckets.size(); ++b) {
    const Message& m = profile.buckets[b];
    buckets.add_row({all.name_of_bucket(int(b)), fixed(m.bytes / (1 << 20), 2), ms(m.ready),
                     m.seconds > 0.0 ? ms(m.seconds) : "-"});
  }
  std::cout
      << buckets.text()
      << "'ready': backward's own time until then; 'sum': of the rank that came last, the others waited for it.\n";
  if (!machine.device.is_host())
    std::cout
        << "These steps were launched piece by piece: a recorded step, as training replays it, passes no time stamps, "
           "and spares the host's launches.\n";
  if (machine.device.type == DeviceType::emulated)
    std::cout << "The emulated device executes a GPU's kernels on this processor: its times say nothing about a GPU.\n";

  json["otherData"]["profile"] = to_json(profile);
  const std::filesystem::path folder = std::filesystem::path(o.trace).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  write_json(o.trace, json);
  std::cout << "Timeline: " << o.trace << " (chrome://tracing, ui.perfetto.dev)\n";
  return 0;
}

/// Seconds that a step takes here, in the middle.
double turn(StepRig& rig, int steps, Collectives* watched) {
  std::vector<double> times;
  for (int i = 0; i < steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    rig.step();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (watched) say_step(*watched);
  }
  return median(times);
}

double largest_of(Collectives& ranks, double mine) {
  std::vector<double> all(std::size_t(ranks.size()), 0.0);
  all[std::size_t(ranks.rank())] = mine;
  ranks.sum_on_host(all);
  return *std::max_element(all.begin(), all.end());
}

int weak_scaling(const BenchOptions& o, const std::shared_ptr<Collectives>& ranks) {
  check(ranks->size() > 1, Kind::usage, [] {
    return std::string(
        "bench --weak-scaling compares one rank with several, and this is one; start it by mpirun -n 2 --bind-to none "
        "evergrad bench --weak-scaling --threads 1");
  });
  const ResolvedMachine machine = resolve_machine(o.machine, ranks->size());
  std::cout << heading(o, machine, *ranks) << std::flush;
  StepRig alone(o, machine, first_method(o)), together(o, machine, first_method(o), ranks);
  alone.warm_up(), together.warm_up();

  // A turn of each in every round, so that whatever else the machine does meets all three.
  std::vector<double> one, apart, all, contention, exchange, efficiency;
  for (int round = 0; round < o.rounds; ++round) {
    ranks->barrier();
    all.push_back(largest_of(*ranks, turn(together, o.steps, ranks.get())));
    say_busy(*ranks, "timing steps without the others");
    ranks->barrier();
    const auto start = std::chrono::steady_clock::now();
    const double mine = turn(alone, o.steps, nullptr);
    const auto took = std::chrono::steady_clock::now() - start;
    apart.push_back(largest_of(*ranks, mine));
    ranks->barrier();
    double first = 0.0;
    if (ranks->rank() == 0)
      first = turn(alone, o.steps, nullptr);
    else
      std::this_thread::sleep_for(took * 9 / 10);  // whoever waits inside MPI keeps a core busy
    one.push_back(largest_of(*ranks, first));
    contention.push_back(one.back() / apart.back()), exchange.push_back(apart.back() / all.back());
    efficiency.push_back(one.back() / all.back());
  }
  const auto range = [](const std::vector<double>& v) {
    const auto [least, most] = std::minmax_element(v.begin(), v.end());
    return cat(fixed(100 * *least, 1), " to ", fixed(100 * *most, 1), "%");
  };
  const std::string n = std::to_string(ranks->size());
  TextTable table({"", "step ms", "images/s", "efficiency", "range"});
  table.add_row({"1 rank", ms(median(one)), fixed(o.batch / median(one), 1), "", ""});
  table.add_row({n + " ranks, nothing exchanged", ms(median(apart)), fixed(ranks->size() * o.batch / median(apart), 1),
                 fixed(100 * median(contention), 1) + "%", range(contention)});
  table.add_row({n + " ranks", ms(median(all)), fixed(ranks->size() * o.batch / median(all), 1),
                 fixed(100 * median(efficiency), 1) + "%", range(efficiency)});
  std::cout
      << '\n'
      << table.text() << "Medians of " << o.rounds << " rounds of " << o.steps
      << " steps each, in turns; a step is as long as the slowest rank's. Efficiency: one rank's step over\n"
         "this one, round by round. What is lost without an exchange, the ranks lose to each other's use of caches, "
         "memory and clock.\nOf the exchange alone: "
      << fixed(100 * median(exchange), 1) << "% (" << range(exchange) << ").\n";
  if (!o.json.empty() && ranks->rank() == 0)
    write_json(o.json, {{"ranks", ranks->size()},
                        {"batch_per_rank", o.batch},
                        {"threads_per_rank", num_threads()},
                        {"device", to_string(machine.device)},
                        {"precision", machine.precision},
                        {"model", alone.vit().describe()},
                        {"method", first_method(o)},
                        {"one_rank_s", one},
                        {"nothing_exchanged_s", apart},
                        {"all_ranks_s", all},
                        {"efficiency", median(efficiency)},
                        {"efficiency_of_exchange", median(exchange)}});
  return 0;
}

int over_ranks(BenchOptions o, int (*body)(const BenchOptions&, const std::shared_ptr<Collectives>&)) {
  resolve_model(o.model);
  const std::shared_ptr<Collectives> ranks = connect_ranks(o.ranks, &o.machine.device, o.machine.deterministic);
  return run_as_rank(*ranks, [&] { return body(o, ranks); });
}

}  // namespace

int bench_trace(BenchOptions o) { return over_ranks(std::move(o), trace); }
int bench_weak_scaling(BenchOptions o) { return over_ranks(std::move(o), weak_scaling); }

}  // namespace eg
