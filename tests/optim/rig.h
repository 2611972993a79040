// tests/optim/rig.h - an optimizer on hand-made parameters: gradients go in, weights come out.
#pragma once
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "optim/optimizer.h"
#include "tests/tolerance.h"

namespace eg::test {

using Values = std::vector<double>;

/// A parameter with its initial values. Defaults make it what ARROW updates: the output projection of block 0.
struct Piece {
  Values start;
  std::string name = "blocks.0.attn.proj.weight";
  Module module = Module::proj;
  int block = 0;
  bool decays = true, frozen = false;
  Shape shape = {};  // empty: [1, n]
  Init init = {};
  UnitLink link = {};
  Role role = Role::weight;
};

struct Rig {
  std::vector<Param> store;
  std::vector<Param*> list;
  ParamArena arena;
  StepRecord record;
  std::unique_ptr<Optimizer> optimizer;
  int depth = 1;
  /// Where a method takes its gradient elsewhere: the gradients at these weights, one list per parameter. Without it
  /// they are what step() is given.
  std::function<std::vector<Values>(const std::vector<Values>&)> slope;
  Values activity, firing;  // of hidden units in every step, where a method watches them
  std::int64_t images = 1;  // of every step

  Rig(Device device, const std::string& method, const std::vector<Piece>& pieces, double lr = -1.0, double decay = 0.0,
      double max_norm = 0.0, DType activation = DType::f64)
      : store(pieces.size()) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      Param& p = store[i];
      p.name = piece.name, p.module = piece.module, p.block = piece.block, p.decays = piece.decays,
      p.frozen = piece.frozen, p.role = piece.role;
      p.shape = piece.shape.rank() ? piece.shape : Shape{1, std::int64_t(piece.start.size())};
      depth = std::max(depth, piece.block + 1);
      p.fan_in = p.shape.cols(), p.init = piece.init, p.link = piece.link;
      list.push_back(&p);
    }
    arena.build(list, device, activation == DType::bf16 ? activation : device.statistic());
    for (std::size_t i = 0; i < pieces.size(); ++i)
      store[i].master.copy_from(Tensor::from(pieces[i].start, store[i].shape, store[i].master.dtype(), device));
    arena.refresh_work();
    record.max_norm = max_norm;
    optimizer = make_optimizer(parse_method(method), {list, &arena, depth}, lr, decay);
  }

  StepContext context(double factor = 1.0) { return {&record, &record, factor, {}}; }

  /// One step in the order of a training loop; gradients[i] belongs to parameter i.
  void step(const std::vector<Values>& gradients, double factor = 1.0) {
    const auto give = [&](const std::vector<Values>& all) {
      for (std::size_t i = 0; i < list.size(); ++i)
        list[i]->grad.copy_from(Tensor::from(all[i], list[i]->shape, list[i]->grad.dtype(), arena.device));
    };
    give(gradients);
    StepContext ctx = context(factor);
    ctx.images = images;
    optimizer->prepare(ctx);
    // What a forward pass of one row would add: unit f is active in proportion to f + 1.
    for (Param* p : list) {
      for (const Tensor* sums : {&p->sums.absolute, &p->sums.value})
        for (std::int64_t f = 0; *sums && f < sums->size(); ++f)
          sums->data_as<double>()[f] += activity.empty() ? double(f + 1) : activity[std::size_t(f)];
      for (std::int64_t f = 0; p->sums.positive && f < p->sums.positive.size(); ++f)
        p->sums.positive.data_as<double>()[f] += firing.empty() ? double(f % 2) : firing[std::size_t(f)];
      if (p->sums.rows) *p->sums.rows.data_as<double>() += 1.0;
    }
    if (optimizer->ascends()) {
      const Tensor there = optimizer->ascend(ctx);
      std::vector<Values> weights;
      for (const Param* p : list) weights.push_back(there.slice(p->offset, p->size()).to_host());
      if (slope) give(slope(weights));
    }
    for (int group = depth; group >= 0; --group) optimizer->on_gradient_final(group, ctx);
    const Segment all{0, arena.size};
    EVERGRAD_CALL(arena.device, global_norm,
                  GlobalNorm{.grad = arena.grad.view(), .segments = {&all, 1}, .step = &record});
    optimizer->step(ctx);
    optimizer->after_step(ctx);
    record.step += 1;
  }
  void step(const Values& gradient, double factor = 1.0) { step(std::vector<Values>{gradient}, factor); }

  Values weights(std::size_t i = 0) const { return list[i]->master.to_host(); }
  /// What one step took away from parameter i.
  Values taken(const std::vector<Values>& gradients, std::size_t i = 0) {
    const Values before = weights(i);
    step(gradients);
    Values difference = weights(i);
    for (std::size_t k = 0; k < before.size(); ++k) difference[k] = before[k] - difference[k];
    return difference;
  }
  Values taken(const Values& gradient) { return taken(std::vector<Values>{gradient}); }

  /// The same with the weights at zero before, so that at rate 1 and without decay it is the direction, unrounded.
  Values direction(const std::vector<Values>& gradients, std::size_t i = 0) {
    arena.master.set_zero();
    return taken(gradients, i);
  }
  Values direction(const Values& gradient) { return direction(std::vector<Values>{gradient}); }

  ArrowState arrow(const std::string& group = "block0") {
    ArrowState state;
    change_arrow([&](ArrowState& s) { state = s; }, group);
    return state;
  }
  void change_arrow(const std::function<void(ArrowState&)>& change, const std::string& group = "block0") {
    bool found = false;
    optimizer->visit_state([&](const std::string& name, Tensor& t) {
      if (name == group + ".state") change(*reinterpret_cast<ArrowState*>(t.data_as<std::uint8_t>())), found = true;
    });
    REQUIRE(found);
  }
  /// The names of the state tensors that contain `part`.
  std::vector<std::string> state_names(const std::string& part) {
    std::vector<std::string> all;
    optimizer->visit_state([&](const std::string& name, Tensor&) {
      if (name.find(part) != std::string::npos) all.push_back(name);
    });
    return all;
  }
  /// All bits that a checkpoint would hold.
  std::vector<std::vector<std::uint8_t>> bits() {
    std::vector<std::vector<std::uint8_t>> all;
    const auto add = [&](const void* data, std::size_t bytes) {
      all.emplace_back(static_cast<const std::uint8_t*>(data), static_cast<const std::uint8_t*>(data) + bytes);
    };
    add(arena.master.data(), arena.master.bytes());
    add(&record, sizeof record);
    optimizer->visit_state([&](const std::string&, Tensor& t) { add(t.data(), t.bytes()); });
    return all;
  }
  void restore(const std::vector<std::vector<std::uint8_t>>& all) {
    std::size_t i = 0;
    const auto take = [&](void* data, std::size_t bytes) {
      REQUIRE(all[i].size() == bytes);
      std::memcpy(data, all[i++].data(), bytes);
    };
    take(arena.master.data(), arena.master.bytes());
    take(&record, sizeof record);
    optimizer->visit_state([&](const std::string&, Tensor& t) { take(t.data(), t.bytes()); });
    optimizer->state_restored();
  }
};

/// Equal to `digits` (the goldens are printed with nine or more after the point). On cpu every value is a sum of at
/// most four terms, c_j g_j or rate times step, whose absolute values sum to `scale`.
inline void check_close(const Values& got, const Values& wanted, Device device, double scale = 1.0,
                        double digits = 1e-9) {
  REQUIRE(got.size() == wanted.size());
  const double bound = std::max(digits, device == kReference ? 0.0 : sum_error(4, scale));
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CAPTURE(got[i]);
    CAPTURE(wanted[i]);
    CHECK(std::abs(got[i] - wanted[i]) <= bound);
  }
}

/// The message of the Error{usage} that f throws, or "no error".
inline std::string usage_error(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.kind == Kind::usage);
    return e.what();
  }
  return "no error";
}

inline bool contains(const std::string& text, const std::string& part) {
  CAPTURE(text);
  return text.find(part) != std::string::npos;
}

inline const Device kBoth[] = {kReference, kCpu};

}  // namespace eg::test
