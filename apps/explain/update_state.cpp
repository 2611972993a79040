// apps/explain/update_state.cpp - see update_state.h.
#include "apps/explain/update_state.h"

#include <vector>

#include "layers/vit.h"

namespace eg {

double moments_per_weight(const MethodSpec& method) {
  const auto unknown = [&](const std::string& why) {
    fail(Kind::usage,
         cat("--method ", to_text(method), ": the cost of its update is not known here, because ", why,
             "; known are arrow and every update rule whose state is moments alone, like adamw, sgd, upgd"));
  };
  if (!method.with.empty()) {
    MethodSpec base = method;
    base.with.clear();
    unknown(cat("an intervention works beside the rule; see the rule alone with --method ", to_text(base)));
  }
  if (method.name == "muon") unknown("most of it is products of matrices, which its state does not show");

  VitConfig c = vit_config("vit-ti", 8, /*patch=*/4, /*dim=*/16, /*depth=*/1, /*heads=*/1);
  c.classes = 2;
  Vit model = make_vit(c);
  const std::vector<Param*> params = parameters(model);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  const auto rule = make_optimizer(method, {params, &arena, c.depth}, -1.0, -1.0);
  double moments = 0.0, state = 0.0;
  rule->visit_moments([&](Tensor& t) { moments += double(t.size()); });
  rule->visit_state([&](const std::string&, Tensor& t) { state += double(t.size()); });
  const double weights = double(arena.size);
  // Counters and the like are a few numbers; something of every matrix is not.
  if (state - moments > 0.1 * weights)
    unknown(cat("beside its moments it keeps ", (state - moments) / weights,
                " numbers per weight of a small network, and how often it reads them is not to be seen"));
  return moments / weights;
}

}  // namespace eg
