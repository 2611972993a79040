// optim/plasticity/plastic.cpp - PLASTIC (Lee et al. 2023, arXiv:2306.10711) for supervised streams (methods.md B.14): flat
// valleys by sharpness-aware gradients of the backbone, lively units by CReLU and layer norm (the blocks are pre-norm as
// they are), and a new head for every task. Each part can be left out, to see what it does.
#include "optim/plasticity/intervention.h"

namespace eg {
namespace {

struct Parts {
  bool sam, crelu, head_reset;
  std::string rho;
};

Parts read(const MethodSpec& spec) {
  OptionReader r(spec);
  Parts p{};
  p.sam = r.flag("sam", true), p.crelu = r.flag("crelu", true), p.head_reset = r.flag("head-reset", true);
  r.number("rho", 0.1, 0.0, 1e6);
  p.rho = r.text("rho", "0.1");
  r.finish();
  return p;
}

class Plastic final : public Intervention {
 public:
  Plastic(const MethodSpec& spec, const Parameters& p) : parts_(read(spec)) {
    if (parts_.sam) sam_ = make_sam({"sam", {{"rho", parts_.rho}, {"head", "false"}}, {}}, p);
    if (parts_.head_reset) reset_ = make_reset({"head-reset", {}, {}}, p);
  }
  std::string name() const override { return "plastic"; }
  Stage stage() const override { return Stage::replacement; }
  bool rewrites_weights() const override { return bool(reset_); }
  bool ascends() const override { return sam_ && sam_->ascends(); }
  Tensor ascend(StepContext& ctx) override { return sam_->ascend(ctx); }
  void task_boundary(StepContext& ctx) override {
    if (reset_) reset_->task_boundary(ctx);
  }
  std::string describe() const override {
    return cat("PLASTIC: ", sam_ ? sam_->describe() : "plain gradient", "; ", parts_.crelu ? "CReLU" : "GELU", "; ",
               reset_ ? reset_->describe() : "the head stays");
  }

 private:
  Parts parts_;
  std::unique_ptr<Intervention> sam_, reset_;
};

}  // namespace

void plastic_model(const MethodSpec& spec, ModelChange& change) { change.crelu |= read(spec).crelu; }

std::unique_ptr<Intervention> make_plastic(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Plastic>(spec, p);
}

}  // namespace eg
