// apps/explain/trace_update.cpp - gradients in the order in which they become final, ARROW's window, and what moved.
#include <cmath>
#include <cstring>

#include "apps/explain/trace_parts.h"

namespace eg::traced {

Param& param(Trainer& t, const std::string& name) {
  for (Param* p : t.params())
    if (p->name == name) return *p;
  fail(Kind::internal, cat("the traced network has no parameter ", name));
}

void show_backward(Page& page, Trainer& trainer, Tape& tape, const Tensor& loss) {
  const int depth = trainer.model().config.depth;
  page.section("backward", "the tape from its end; a group's gradient norm, in the order in which groups are final");
  page.whole("operations on the tape", std::int64_t(tape.node_count()));
  tape.on_gradient_final([&](int group) {
    double squares = 0.0;
    for (const Param* p : trainer.params())
      if ((p->block < 0 ? depth : p->block) == group) squares += std::pow(norm(p->grad.to_host()), 2);
    page.number(group == depth ? "embedding, last norm, head" : cat("block ", group), std::sqrt(squares));
  });
  backward(tape, loss);
}

namespace {

ArrowState arrow_state(const Tensor& t) {
  ArrowState s;
  std::memcpy(&s, t.data(), sizeof s);
  return s;
}

}  // namespace

void show_arrow(Page& page, Trainer& trainer, const std::string& group, double moved) {
  ArrowState s;
  List grams;
  trainer.optimizer().visit_state([&](const std::string& name, Tensor& t) {
    if (name == group + ".state") s = arrow_state(t);
    if (name == group + ".gram") grams = t.to_host();
  });
  const std::int64_t slots = 5, newest = (s.next + slots - 1) % slots,
                     tensors = std::int64_t(grams.size()) / (slots * slots);
  page.section("ARROW", cat(group, ": the window of the last ", s.filled, " gradients of its four attention matrices"));
  List row, coefficients;
  for (std::int64_t back = 0; back < s.filled; ++back) {
    const std::int64_t j = (newest + slots - back) % slots;
    double dot = 0.0;
    for (std::int64_t t = 0; t < tensors; ++t) dot += grams[std::size_t((t * slots + newest) * slots + j)];
    row.push_back(dot * s.clip[newest] * s.clip[j]), coefficients.push_back(s.coefficient[j]);
  }
  page.list("Gram row: newest with newest .. oldest", row);
  page.number("length of the newest gradient", std::sqrt(s.norm_sq_gradient));
  page.number("trace of the covariance", s.trace);
  page.list("damping: alpha, beta", {s.alpha, s.beta});
  page.list("coefficients, newest .. oldest", coefficients);
  page.number("length of their combination", std::sqrt(s.norm_sq_update));
  page.number("learning rate x grafted length", moved);
}

WatchedWeight watch_weight(Trainer& t, const std::string& name, const std::string& rule) {
  const Param& p = param(t, name);
  return {name, rule, p.master.to_host()[0], p.grad.to_host()[0]};
}

double moved_by(Trainer& trainer, int block, const List& before) {
  double squares = 0.0;
  for (const Param* p : trainer.params()) {
    if (p->block != block || (p->module != Module::qkv && p->module != Module::proj) || p->shape.rank() != 2) continue;
    const List now = p->master.to_host();
    for (std::size_t i = 0; i < now.size(); ++i) squares += std::pow(now[i] - before[std::size_t(p->offset) + i], 2);
  }
  return std::sqrt(squares);
}

}  // namespace eg::traced
