// apps/distributed/sharded_optimizer.cpp - see sharded_optimizer.h. An elementwise update does not know what it updates: it is
// built on an arena that is this rank's part of the real one, with the parameters cut to what lies in it.
#include "apps/distributed/sharded_optimizer.h"

#include <algorithm>
#include <set>
#include <vector>

#include "engine/error.h"
#include "engine/kernels.h"

namespace eg {
namespace {

constexpr std::int64_t kAlign = 16;  // elements: where the arena's parameters begin, too

class ShardedOptimizer final : public Optimizer {
 public:
  ShardedOptimizer(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay,
                   std::shared_ptr<Collectives> ranks)
      : arena_(*p.arena), ranks_(std::move(ranks)) {
    const std::int64_t n = ranks_->size();
    part_ = ((arena_.size + n - 1) / n + kAlign - 1) / kAlign * kAlign;
    begin_ = std::min(arena_.size, part_ * ranks_->rank());
    own_ = {.size = std::min(part_, arena_.size - begin_), .device = arena_.device};
    own_.master = arena_.master.slice(begin_, own_.size);
    own_.grad = arena_.grad.slice(begin_, own_.size);
    if (arena_.work) own_.work = arena_.work.slice(begin_, own_.size);
    cut(p.list);
    inner_ = make_optimizer(spec, {pointers_, &own_, p.depth}, lr, weight_decay);
  }

  std::string name() const override { return inner_->name(); }
  void prepare(StepContext& ctx) override {
    whole_.clear();  // what was saved is saved
    inner_->prepare(ctx);
  }
  void step(StepContext& ctx) override {
    inner_->step(ctx);
    gather(arena_.master, ctx.stream);
    if (arena_.work)
      EVERGRAD_CALL(arena_.device, cast, Cast{.from = arena_.master.view(), .to = arena_.work.view()}, ctx.stream);
  }
  void task_boundary(StepContext& ctx, bool keep_state) override { inner_->task_boundary(ctx, keep_state); }

  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    whole_.clear();
    inner_->visit_state([&](const std::string& tensor, Tensor& t) {
      const bool divided = t.shape() == own_.master.shape() && t.device() == arena_.device;
      if (!divided) return visit(tensor, t);
      const Tensor room = Tensor::zeros({part_ * ranks_->size()}, t.dtype(), arena_.device);
      if (own_.size) room.slice(begin_, own_.size).copy_from(t);
      gather(room, {});
      runtime(arena_.device).synchronize({});
      Tensor whole = room.slice(0, arena_.size);
      whole_.push_back({t, whole});
      visit(tensor, whole);
    });
  }
  void state_restored() override {
    for (const auto& [part, whole] : whole_) part.copy_from(whole.slice(begin_, own_.size));
    whole_.clear();
    inner_->state_restored();
  }
  std::size_t state_bytes() const override { return inner_->state_bytes(); }
  std::map<std::string, double> scalars() override { return inner_->scalars(); }
  std::string describe() const override {
    return cat(inner_->describe(), ", its state divided among ", ranks_->size(), " ranks");
  }

 private:
  /// The parameters, as far as they lie in this rank's part.
  void cut(std::span<Param* const> params) {
    for (const Param* p : params) {
      const std::int64_t from = std::max(p->offset, begin_), to = std::min(p->offset + p->size(), begin_ + own_.size);
      if (from >= to) continue;
      Param q = *p;
      q.shape = {to - from}, q.offset = from - begin_, q.sums = {}, q.link = {};
      q.master = own_.master.slice(q.offset, q.size()), q.grad = own_.grad.slice(q.offset, q.size());
      q.value = own_.work ? own_.work.slice(q.offset, q.size()) : q.master;
      params_.push_back(std::move(q));
    }
    for (Param& p : params_) pointers_.push_back(&p);
  }

  /// `whole` has room for the equal parts of all ranks, of which each has its own in place: then it has all.
  void gather(const Tensor& whole, Stream s) const {
    const std::size_t width = size_of(whole.dtype()), parts = std::size_t(part_) * std::size_t(ranks_->size());
    check(whole.storage()->bytes() >= std::size_t(whole.offset_bytes()) + parts * width, Kind::internal,
          [&] { return cat(ranks_->size(), " parts of ", part_, " elements do not fit behind ", whole); });
    auto* const first = static_cast<std::byte*>(whole.data());
    ranks_->all_gather(first + std::size_t(part_) * std::size_t(ranks_->rank()) * width, first, part_, whole.dtype(),
                       s);
  }

  ParamArena& arena_;
  std::shared_ptr<Collectives> ranks_;
  std::int64_t part_ = 0, begin_ = 0;  // elements of a part; where this rank's begins
  ParamArena own_;                     // views of arena_
  std::vector<Param> params_;
  std::vector<Param*> pointers_;
  std::unique_ptr<Optimizer> inner_;
  std::vector<std::pair<Tensor, Tensor>> whole_;  // this rank's part, and the whole that was visited
};

}  // namespace

std::unique_ptr<Optimizer> make_sharded_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                                  double weight_decay, std::shared_ptr<Collectives> ranks) {
  static const std::set<std::string> kElementwise{"sgd", "adam", "adamw"};
  check(kElementwise.contains(spec.name) && spec.with.empty(), Kind::usage, [&] {
    return cat("--zero 1 divides the state of sgd, adam and adamw, each without interventions; ", to_text(spec),
               " looks at whole matrices: use --zero 0");
  });
  return std::make_unique<ShardedOptimizer>(spec, parameters, lr, weight_decay, std::move(ranks));
}

}  // namespace eg
