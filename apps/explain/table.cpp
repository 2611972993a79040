// apps/explain/table.cpp - see table.h.
#include "apps/explain/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/explain/update_state.h"
#include "apps/run/table.h"
#include "layers/vit.h"
#include "optim/arrow_targets.h"

namespace eg {
namespace {

/// Three or four significant digits, without an exponent.
std::string digits(double x) {
  if (x == 0.0) return "0";
  const int before = int(std::floor(std::log10(std::abs(x)))) + 1;
  return fixed(x, std::clamp(3 - before, 0, 4));
}

std::string count_text(std::int64_t n) {
  if (n == 0) return "";
  if (n < 100000) return std::to_string(n);
  return n < 100000000 ? fixed(double(n) * 1e-6, 2) + " M" : fixed(double(n) * 1e-6, 1) + " M";
}

void add_pass(TextTable& table, const Explained& e, Pass pass, const char* title, double step_seconds) {
  Totals part;
  table.add_row({title});
  for (const Operation& o : e.operations) {
    if (o.pass != pass) continue;
    const double seconds = floor_seconds(o, e.roof);
    part.seconds += seconds, part.flops += o.flops, part.bytes += o.bytes, part.kept += o.kept;
    part.parameters += double(o.parameters);
    table.add_row({"  " + o.name, o.shape, o.calls > 1 ? std::to_string(o.calls) : "", count_text(o.parameters),
                   digits(o.flops * 1e-9), digits(o.bytes * 1e-6), o.kept > 0 ? digits(o.kept * 1e-6) : "",
                   digits(o.flops / o.bytes), digits(seconds * 1e3), fixed(100 * seconds / step_seconds, 1),
                   compute_bound(o, e.roof) ? "compute" : "memory"});
  }
  table.add_row({"  together", "", "", count_text(std::int64_t(part.parameters)), digits(part.flops * 1e-9),
                 digits(part.bytes * 1e-6), part.kept > 0 ? digits(part.kept * 1e-6) : "", "",
                 digits(part.seconds * 1e3), fixed(100 * part.seconds / step_seconds, 1)});
}

constexpr const char* kColumns =
    "Columns\n"
    "  one call   its operands: a x b x c is the product of [a,b] with [b,c], the batch's tokens in one matrix\n"
    "  calls      how often it runs in a step: once per block, where it belongs to a block\n"
    "  params     weights that it owns; they are learned, and change at the end of the step\n"
    "  GFLOP      additions and multiplications of all its calls, in 10^9\n"
    "  MB         what its calls read and write at least: each operand once, each result once\n"
    "  kept MB    what forward leaves in memory because backward will read it\n"
    "  FLOP/B     arithmetic intensity, GFLOP over MB: work that is done with each byte that is moved\n"
    "  ms         the floor, no implementation on this machine is faster: the larger of GFLOP over the machine's\n"
    "             arithmetic and MB over its memory speed (the roofline of Williams, Waterman and Patterson 2009).\n"
    "             Both speeds are measured now unless they are given: on a busy machine they come out too low\n"
    "  %          its share of the step's floor\n"
    "  bound      which of the two it is; memory where FLOP/B lies below the machine's ridge\n";

struct Lesson {
  const char *kind, *says;
};
constexpr std::array<Lesson, 13> kLessons{{
    {"patchify", "cuts each image into squares and normalises their pixels; a square becomes a row of numbers"},
    {"patch embed", "a matrix turns each square into a token, a vector of the network's width"},
    {"tokens + position", "puts the class token in front and adds to every token a vector for its place"},
    {"norm", "gives every token mean 0 and variance 1, then a learned scale and shift; adds the branch before it"},
    {"qkv", "one matrix gives every token its query, key and value, for all heads"},
    {"attention",
     "query times key says how much each token takes of every other one's value; the scores are never\n"
     "                     stored, so backward computes them again (10 instead of 8 operations per pair)"},
    {"proj", "a matrix mixes what the heads found and adds it to the token"},
    {"fc1 + GELU, fc2", "every token alone: a wider hidden layer, its non-linearity inside the product, and back"},
    {"head, loss", "the class token (or the mean) becomes a score per class; softmax and its gradient in one pass"},
    {"d input", "how the loss changes with a layer's input: a product with the same weights, transposed"},
    {"d weight", "how it changes with the weights: what came in, times the gradient that came back, over all tokens"},
    {"AdamW, SGD, rule", "reads gradient, weight and running means, writes them back: nothing but memory traffic"},
    {"ARROW",
     "keeps a window of past gradients; the new one becomes a column of it (observe), and the step is a\n"
     "                     combination of the columns that damps directions which they share (step)"},
}};

/// The plan, with gradients of the type that this device gives them.
MemoryPlan plan_of(const StepShape& s) {
  MemoryPlan m = s.vit.memory_plan(s.batch);
  if (s.narrow_gradients) m.gradients = double(s.vit.parameter_count()) * double(size_of(s.vit.precision));
  return m;
}

std::string lessons() {
  std::string text = "\nWhat the operations do\n";
  for (const Lesson& l : kLessons)
    text += cat("  ", l.kind, std::string(19 - std::string(l.kind).size(), ' '), l.says, '\n');
  return text +
         "\nBackward costs twice as much as forward: each product has two gradients. Only the patch embedding's input, "
         "the\n"
         "image, needs none. In the last block everything behind attention is computed for the class token alone.\n";
}

}  // namespace

Totals totals(const std::vector<Operation>& operations, const Roof& roof) {
  Totals t;
  for (const Operation& o : operations) {
    const double seconds = floor_seconds(o, roof);
    t.parameters += double(o.parameters), t.flops += o.flops, t.bytes += o.bytes, t.kept += o.kept;
    t.seconds += seconds;
    if (o.pass == Pass::forward && o.product) t.forward_flops += o.flops;
    if (compute_bound(o, roof)) t.compute_seconds += seconds;
  }
  return t;
}

double optimizer_bytes(const StepShape& s) {
  const double all = double(s.vit.parameter_count()), master = s.vit.precision == DType::f64 ? 8.0 : 4.0;
  if (s.method.name != "arrow") return moments_per_weight(s.method) * master * all;
  double bytes = 2 * master * all;
  Vit v = make_vit(s.vit);
  const std::vector<Param*> params = parameters(v);
  const ArrowSettings a = read_arrow_settings(s.method, s.vit.depth, 0.0);
  const double element = a.bf16_ring ? 2.0 : s.narrow_gradients ? double(size_of(s.vit.precision)) : master;
  for (const ArrowRun& r : arrow_runs(a, {params, nullptr, s.vit.depth}))
    bytes += element * (a.solve.window + 1) * double(r.size);
  return bytes;
}

std::string explanation_text(const Explained& e, bool legend) {
  const VitConfig& c = e.shape.vit;
  const Totals t = totals(e.operations, e.roof);
  const double batch = double(e.shape.batch);
  std::string text = cat(c.describe(), "\nbatch ", e.shape.batch, ", ", to_text(e.shape.method), ", ", e.machine,
                         "\nceilings: ", e.roof.gflops > 0 ? digits(e.roof.gflops) + " GFLOP/s" : "arithmetic unknown",
                         ", ", digits(e.roof.gb_per_s), " GB/s (", e.roof.source, ")");
  if (e.roof.gflops > 0) text += cat("; ridge ", digits(e.roof.gflops / e.roof.gb_per_s), " FLOP/B");
  TextTable table({"operation", "one call", "calls", "params", "GFLOP", "MB", "kept MB", "FLOP/B", "ms", "%", "bound"});
  add_pass(table, e, Pass::forward, "forward", t.seconds);
  add_pass(table, e, Pass::backward, "backward", t.seconds);
  add_pass(table, e, Pass::update, "update", t.seconds);
  text += "\n\n" + table.text() + '\n';

  const MemoryPlan m = plan_of(e.shape);
  TextTable sums({"the whole step", "", ""});
  const auto mib = [](double bytes) { return fixed(bytes / (1 << 20), bytes < (10 << 20) ? 2 : 0) + " MiB"; };
  sums.add_row({"parameters", fixed(t.parameters * 1e-6, 2) + " M", mib(m.weights) + " of weights"});
  sums.add_row({"operations per image", digits(c.train_flops() * 1e-9) + " GFLOP",
                cat("forward ", digits(c.forward_flops() * 1e-9),
                    "; the usual count: products and attention, 2 per "
                    "multiply-add")});
  sums.add_row({"memory at its peak", mib(m.total() + e.optimizer_bytes),
                cat("weights ", mib(m.weights), ", gradients ", mib(m.gradients), ", ", e.shape.method.name, " ",
                    mib(e.optimizer_bytes), ", activations ", mib(m.activations))});
  sums.add_row({"floor", digits(t.seconds * 1e3) + " ms",
                cat(fixed(100 * t.compute_seconds / t.seconds, 0), "% of it bound by arithmetic, the rest by memory")});
  sums.add_row({"at most", digits(batch / t.seconds) + " images/s",
                e.roof.gflops > 0 ? cat(fixed(100 * c.train_flops() * batch / t.seconds * 1e-9 / e.roof.gflops, 0),
                                        "% of the arithmetic ceiling (usual count; the last block saves some of it)")
                                  : std::string()});
  for (const MeasuredStep& s : e.measured)
    sums.add_row({"measured, " + s.method, digits(s.milliseconds) + " ms",
                  cat(fixed(s.milliseconds / (t.seconds * 1e3), 2), " times the floor, ",
                      digits(batch / s.milliseconds * 1e3), " images/s")});
  text += sums.text();
  if (legend) text += cat('\n', kColumns, lessons());
  return text;
}

nlohmann::json explanation_json(const Explained& e) {
  const VitConfig& c = e.shape.vit;
  const Totals t = totals(e.operations, e.roof);
  const MemoryPlan m = plan_of(e.shape);
  static const char* const kPass[] = {"forward", "backward", "update"};
  nlohmann::json operations = nlohmann::json::array(), measured = nlohmann::json::array();
  for (const Operation& o : e.operations)
    operations.push_back({{"pass", kPass[int(o.pass)]},
                          {"name", o.name},
                          {"shape", o.shape},
                          {"calls", o.calls},
                          {"parameters", o.parameters},
                          {"flops", o.flops},
                          {"bytes", o.bytes},
                          {"kept_bytes", o.kept},
                          {"flops_per_byte", o.flops / o.bytes},
                          {"floor_ms", 1e3 * floor_seconds(o, e.roof)},
                          {"bound", compute_bound(o, e.roof) ? "compute" : "memory"}});
  for (const MeasuredStep& s : e.measured)
    measured.push_back(
        {{"method", s.method}, {"ms", s.milliseconds}, {"times_floor", s.milliseconds / (1e3 * t.seconds)}});
  return {{"model", c.describe()},
          {"batch", e.shape.batch},
          {"method", to_text(e.shape.method)},
          {"machine", e.machine},
          {"ceilings", {{"gflops", e.roof.gflops}, {"gb_per_s", e.roof.gb_per_s}, {"source", e.roof.source}}},
          {"operations", operations},
          {"totals",
           {{"parameters", t.parameters},
            {"forward_flops_per_image", c.forward_flops()},
            {"train_flops_per_image", c.train_flops()},
            {"flops", t.flops},
            {"bytes", t.bytes},
            {"kept_bytes", t.kept},
            {"weights_bytes", m.weights},
            {"gradients_bytes", m.gradients},
            {"optimizer_bytes", e.optimizer_bytes},
            {"activations_peak_bytes", m.activations},
            {"floor_ms", 1e3 * t.seconds},
            {"images_per_second_bound", double(e.shape.batch) / t.seconds}}},
          {"measured", measured}};
}

}  // namespace eg
