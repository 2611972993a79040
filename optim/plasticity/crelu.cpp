// optim/plasticity/crelu.cpp - concatenated ReLU in the MLPs (Shang et al. 2016, arXiv:1603.05201; against loss of plasticity
// Abbas et al. 2023, arXiv:2303.07507): a unit gives max(z, 0) and max(-z, 0), so that it always passes a gradient. The
// network does it (VitConfig::activation, which the registry's line asks for); between steps there is nothing to do.
#include "optim/plasticity/intervention.h"

namespace eg {
namespace {

class Crelu final : public Intervention {
 public:
  explicit Crelu(const MethodSpec& spec) { OptionReader(spec).finish(); }
  std::string name() const override { return "crelu"; }
  Stage stage() const override { return Stage::scaling; }
  bool rewrites_weights() const override { return false; }
  std::string describe() const override { return "CReLU in the MLPs, with two thirds of their hidden units"; }
};

}  // namespace

void crelu_model(const MethodSpec&, ModelChange& change) { change.crelu = true; }

std::unique_ptr<Intervention> make_crelu(const MethodSpec& spec, const Parameters&) {
  return std::make_unique<Crelu>(spec);
}

}  // namespace eg
