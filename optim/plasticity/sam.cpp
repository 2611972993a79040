// optim/plasticity/sam.cpp - sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412) and its adaptive form (Kwon
// et al. 2021, arXiv:2102.11600): the gradient that counts is taken a small step uphill, where a flat valley is still low
// and a sharp one is not.
//
//   SAM    e = rho g1 / (|g1| + 1e-12)             ASAM   e = rho w^2 g1 / (||w| g1| + 1e-12)
//   g2 = gradient at w + e, on the same images, with the same masks; the base's step is taken from w with g2
//
// The second pass reads weights of their own, so that w stays as it is, bit for bit, and what acts on w meanwhile
// (penalties, ARROW) meets w and g2. With --accumulate e is that of the whole batch.
#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Sam final : public Intervention {
 public:
  Sam(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    adaptive_ = r.flag("adaptive", false);
    rho_ = r.number("rho", adaptive_ ? 2.0 : 0.05, 0.0, 1e6);
    head_ = r.flag("head", true);
    r.finish();
    bool any = false;
    for (const Param* param : p.list) {
      WeightSegment s;
      s.begin = param->offset, s.end = param->offset + param->size();
      s.pull = param->frozen || (!head_ && param->module == Module::head) ? 0.0f : float(rho_);
      any |= s.pull != 0.0f;
      segments_.push_back(s);
    }
    if (!any) return;
    const Tensor& read = arena_.work ? arena_.work : arena_.master;
    there_ = Tensor::zeros(read.shape(), read.dtype(), arena_.device);
  }
  std::string name() const override { return "sam"; }
  Stage stage() const override { return Stage::scaling; }
  bool rewrites_weights() const override { return false; }
  bool ascends() const override { return bool(there_); }
  Tensor ascend(StepContext& ctx) override {
    EVERGRAD_CALL(arena_.device, weight_ascent,
                  WeightAscent{.weight = arena_.master.view(),
                               .grad = arena_.grad.view(),
                               .to = there_.view(),
                               .segments = segments_,
                               .adaptive = adaptive_},
                  ctx.stream);
    return there_;
  }
  std::string describe() const override {
    return cat(adaptive_ ? "adaptive sharpness-aware" : "sharpness-aware", " gradient, ", rho_, " uphill",
               head_ ? "" : ", the head excepted");
  }

 private:
  ParamArena& arena_;
  bool adaptive_ = false, head_ = true;
  double rho_ = 0.0;
  std::vector<WeightSegment> segments_;  // of all parameters; pull 0 where weights stay
  Tensor there_;                         // w + e, as the forward pass reads it; empty when rho is 0
};

}  // namespace

std::unique_ptr<Intervention> make_sam(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Sam>(spec, p);
}

}  // namespace eg
