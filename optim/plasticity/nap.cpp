// optim/plasticity/nap.cpp - normalize and project (Lyle et al. 2024, arXiv:2407.01800): what a layer norm follows does not
// depend on the length of its weights, but their growth lowers the effective learning rate; so after every step each
// matrix of q, k, v, output and the MLP is scaled back to the length it began with. The lite form of methods.md B.5:
// pre-norm blocks as they are; --qk-norm adds the norms of q and k.
#include <cmath>

#include "optim/hidden_matrices.h"
#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Nap final : public Intervention {
 public:
  Nap(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    every_ = r.integer("every", 1, 1, 1000000);
    r.finish();
    require_trainable_matrices(p, spec.name);
    const std::vector<double> weights = arena_.master.to_host();
    for (const WeightSegment& whole : weight_segments(p, [](const Param&param, WeightSegment&s) {
           s.keep = param.module == Module::qkv ? 3.0f : 1.0f;  // q, k and v are three matrices
           return param.role == Role::weight && param.block >= 0 && param.shape.rank() == 2;
         })) {
      const std::int64_t parts = std::int64_t(whole.keep), size = (whole.end - whole.begin) / parts;
      for (std::int64_t i = 0; i < parts; ++i) {
        WeightSegment s{whole.begin + i * size, whole.begin + (i + 1) * size};
        double sum = 0.0;
        for (std::int64_t k = s.begin; k < s.end; ++k) sum += weights[std::size_t(k)] * weights[std::size_t(k)];
        s.bound = float(std::sqrt(sum));
        if (sum > 0.0) segments_.push_back(s);
      }
    }
    lengths_ = Tensor::zeros({std::max<std::int64_t>(1, std::int64_t(segments_.size()))}, DType::f32, kCpu);
    for (std::size_t i = 0; i < segments_.size(); ++i) lengths_.data_as<float>()[i] = segments_[i].bound;
  }
  std::string name() const override { return "nap"; }
  Stage stage() const override { return Stage::projection; }
  void after_update(StepContext& ctx) override {
    EVERGRAD_CALL(arena_.device, weight_project,
                  WeightProject{.weight = arena_.master.view(),
                                .work = work_of(arena_),
                                .segments = segments_,
                                .step = ctx.device_step,
                                .every = every_},
                  ctx.stream);
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("lengths", lengths_);
  }
  void state_restored() override {
    for (std::size_t i = 0; i < segments_.size(); ++i) segments_[i].bound = lengths_.data_as<float>()[i];
  }
  std::size_t state_bytes() const override { return lengths_.bytes(); }
  std::string describe() const override {
    return cat(segments_.size(), " matrices projected to their first length ",
               every_ == 1 ? std::string("after every step") : cat("every ", every_, " steps"));
  }

 private:
  ParamArena& arena_;
  std::int64_t every_ = 1;
  std::vector<WeightSegment> segments_;
  Tensor lengths_;  // what a checkpoint keeps: the lengths at the start of the run
};

}  // namespace

std::unique_ptr<Intervention> make_nap(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Nap>(spec, p);
}

}  // namespace eg
