// optim/arrow_options.cpp - see arrow_options.h.
#include "optim/arrow_options.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "optim/options_reader.h"

namespace eg {

const char* const kArrowOptionsText =
    "blocks=last-4|first-N|all|3-5+9, tensors=qkvo, mlp, biases, grouping=tensor|module|block|global, window=8, "
    "damping=dimensionless|absolute|relative (kappa=10, alpha=1, beta=1, rho=0.1), divisor=capacity|filled, "
    "relative-over=filled|all, warmup=base|none|beta-ramp|alpha-decay, warmup-steps=W, "
    "alpha-schedule=constant|linear|exponential (alpha-final=1, alpha-steps=W), "
    "boundary=clear|keep|clear-keep-warm, graft=adamw|sgd|none, momentum=0, momentum-form=steps|gradient, "
    "ring=fp32|bf16, "
    "update=step|backward, base=adamw|sgd, arrow-lr, weight-decay, beta1, beta2, eps, paper";

namespace {

[[noreturn]] void bad_blocks(const std::string& text, int depth) {
  fail(Kind::usage, cat("arrow: blocks=", text, " does not name blocks of a model with ", depth, " blocks (0 to ",
                        depth - 1, "); use all, last-N, first-N, or numbers and ranges joined by +, such as 3-5+9"));
}

/// Reads a whole non-negative number, or -1.
int number_in(const std::string& text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : -1;
}

void read_damping(OptionReader& r, bool paper, ArrowOptions& o) {
  static constexpr ArrowDamping kDamping[] = {ArrowDamping::dimensionless, ArrowDamping::absolute,
                                              ArrowDamping::relative};
  o.damping = kDamping[r.choice("damping", {"dimensionless", "absolute", "relative"}, paper ? 1 : 0)];
  o.kappa = r.number("kappa", 10.0, 0.0, 1e9);
  o.alpha = r.number("alpha", 1.0, 1e-30, 1e30);
  o.beta = r.number("beta", 1.0, o.damping == ArrowDamping::relative ? 1e-30 : 0.0, 1e30);
  o.rho = r.number("rho", 0.1, 1e-12, 1e9);
  o.divide_by_filled = r.choice("divisor", {"capacity", "filled"}, 0) == 1;
  o.relative_over_all = r.choice("relative-over", {"filled", "all"}, 0) == 1;
}

void read_warmup(OptionReader& r, ArrowOptions& o) {
  const int warmup = r.choice("warmup", {"base", "none", "beta-ramp", "alpha-decay"}, 0);
  o.warmup = warmup == 0 ? ArrowWarmup::base : warmup == 2 ? ArrowWarmup::beta_ramp : ArrowWarmup::none;
  o.warmup_steps = r.integer("warmup-steps", o.window, 0, 1'000'000'000);
  // Warming up by alpha is its schedule over the warm-up steps.
  o.alpha_schedule =
      ArrowSchedule(r.choice("alpha-schedule", {"constant", "linear", "exponential"}, warmup == 3 ? 1 : 0));
  o.alpha_steps = r.integer("alpha-steps", o.warmup_steps, 0, 1'000'000'000);
  o.alpha_final = r.number("alpha-final", 1.0, 1e-30, 1e30);
}

/// Rejects what was given and would do nothing: a sweep over it would be a flat line that looks like a finding.
void check_effects(const MethodSpec& spec, const ArrowSettings& s) {
  const auto acts = [&](const char* key, bool does, const char* with) {
    check(does || !spec.options.contains(key), Kind::usage,
          [&] { return cat(spec.name, ": ", key, " has an effect only with ", with); });
  };
  const ArrowOptions& o = s.solve;
  acts("kappa", o.damping == ArrowDamping::dimensionless, "damping=dimensionless");
  acts("beta", o.damping != ArrowDamping::dimensionless, "damping=absolute or relative");
  acts("alpha", o.damping != ArrowDamping::relative, "damping=absolute or dimensionless");
  acts("rho", o.damping == ArrowDamping::relative, "damping=relative");
  acts("relative-over", o.damping == ArrowDamping::relative, "damping=relative");
  acts("warmup-steps", o.warmup != ArrowWarmup::none || o.alpha_schedule != ArrowSchedule::constant,
       "warmup=base, beta-ramp or alpha-decay");
  for (const char* key : {"alpha-final", "alpha-steps"})
    acts(key, o.alpha_schedule != ArrowSchedule::constant, "alpha-schedule=linear or exponential");
  acts("momentum-form", s.momentum > 0.0, "momentum above 0");
  check(!s.in_backward || spec.with.empty(), Kind::usage, [&] {
    return cat(spec.name, ": update=backward changes weights before an intervention sees the step; remove ",
               spec.with.front().name, " or update=backward");
  });
  check(o.damping != ArrowDamping::relative || o.alpha_schedule == ArrowSchedule::constant, Kind::usage, [&] {
    return cat(spec.name,
               ": damping=relative computes alpha itself, so alpha cannot follow a schedule; use "
               "damping=absolute or dimensionless");
  });
  check(s.graft != ArrowGraft::adamw || s.adamw_base, Kind::usage,
        [&] { return cat(spec.name, ": graft=adamw needs the moments of base=adamw; use graft=sgd or graft=none"); });
  check(!s.norm_control || (s.momentum == 0.0 && s.graft == ArrowGraft::none), Kind::usage, [&] {
    return cat(spec.name,
               " copies the length of ARROW's own step, so momentum and graft have no place in it; remove "
               "them");
  });
}

}  // namespace

std::vector<int> parse_blocks(const std::string& text, int depth) {
  std::set<int> blocks;
  const auto add = [&](int first, int last) {
    if (first < 0 || last >= depth || first > last) bad_blocks(text, depth);
    for (int b = first; b <= last; ++b) blocks.insert(b);
  };
  if (text == "all") {
    add(0, depth - 1);
  } else if (text.starts_with("last-") || text.starts_with("first-")) {
    const bool last = text[0] == 'l';
    const int count = std::min(number_in(text.substr(last ? 5 : 6)), depth);
    if (count < 1) bad_blocks(text, depth);
    add(last ? depth - count : 0, last ? depth - 1 : count - 1);
  } else {
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find('+', begin), text.size());
      const std::string part = text.substr(begin, end - begin);
      const std::size_t dash = part.find('-');
      const int first = number_in(part.substr(0, dash));
      add(first, dash == std::string::npos ? first : number_in(part.substr(dash + 1)));
      begin = end + 1;
    }
  }
  return {blocks.begin(), blocks.end()};
}

ArrowSettings read_arrow_settings(const MethodSpec& spec, int depth, double weight_decay) {
  OptionReader r(spec);
  ArrowSettings s;
  s.norm_control = spec.name == "norm-control";
  const bool paper = r.flag("paper", false);  // the literal formula; everything may still be overridden
  s.blocks = parse_blocks(r.text("blocks", "last-4"), depth);
  s.tensors = r.text("tensors", "qkvo");
  check(!s.tensors.empty() && s.tensors.find_first_not_of("qkvo") == std::string::npos, Kind::usage, [&] {
    return cat("arrow: tensors=", s.tensors, " must be letters out of q, k, v and o (query, key, value, output)");
  });
  s.mlp = r.flag("mlp", false);
  s.biases = r.flag("biases", false);
  s.grouping = ArrowGrouping(r.choice("grouping", {"tensor", "module", "block", "global"}, 2));
  s.solve.window = int(r.integer("window", 8, 1, kArrowMaxWindow));
  read_damping(r, paper, s.solve);
  read_warmup(r, s.solve);
  s.boundary = ArrowBoundary(r.choice("boundary", {"clear", "keep", "clear-keep-warm"}, 0));
  s.adamw_base = r.choice("base", {"adamw", "sgd"}, 0) == 0;
  const int graft = r.choice("graft", {"adamw", "sgd", "none"}, paper || s.norm_control ? 2 : s.adamw_base ? 0 : 1);
  s.graft = graft == 0 ? ArrowGraft::adamw : graft == 1 ? ArrowGraft::sgd : ArrowGraft::none;
  s.momentum = r.number("momentum", 0.0, 0.0, 0.999999);
  s.precondition_momentum = r.choice("momentum-form", {"steps", "gradient"}, 0) == 1 && s.momentum > 0.0;
  s.bf16_ring = r.choice("ring", {"fp32", "bf16"}, 0) == 1;
  s.in_backward = r.choice("update", {"step", "backward"}, 0) == 1;
  // A step that is not grafted lives on the scale of SGD, whose useful rates are 10 to 1000 times AdamW's.
  s.lr = r.number("arrow-lr", s.graft == ArrowGraft::adamw ? -1.0 : 0.1, -1.0, 1e6);
  s.weight_decay = r.number("weight-decay", weight_decay, 0.0, 1e6);
  s.beta1 = r.number("beta1", 0.9, 0.0, 0.999999);
  s.beta2 = r.number("beta2", 0.999, 0.0, 0.99999999);
  s.eps = r.number("eps", 1e-8, 1e-30, 1.0);
  r.finish();
  check_effects(spec, s);
  return s;
}

}  // namespace eg
