// optim/plasticity/units.h - replacing hidden units of the MLPs (methods.md B, replace_unit): the unit's row of the first
// matrix is drawn anew, its bias and its column of the second matrix become zero, and with them its part of every
// moment, its update count and what the method counts of it.
#pragma once
#include <vector>

#include "optim/plasticity/intervention.h"

namespace eg {

class UnitMethod : public Intervention {
 public:
  explicit UnitMethod(const MethodSpec& spec, const Parameters& p);
  Stage stage() const override { return Stage::replacement; }
  void attach(Optimizer& base) override;
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override;
  std::size_t state_bytes() const override;
  std::map<std::string, double> scalars() override { return {{"replaced", double(replaced())}}; }

 protected:
  struct Layer {
    Units units;
    int block = 0;
    UnitSums sums;         // what watch() asked for
    Tensor utility, mean;  // stat [F] or empty; the mean is that of h
    std::int64_t size() const { return units.fc1_weight->shape.rows(); }
  };
  /// Has every training forward pass add up |h|, how often z > 0, h; the last two with the number of rows.
  void watch(bool absolute, bool positive, bool value);
  /// State of one layer, by names that the block's number completes.
  virtual void visit_layer(Layer& layer, const std::function<void(const std::string&, Tensor&)>& visit);
  void replace(Layer& layer, const std::vector<std::int32_t>& which, StepContext& ctx);
  std::int64_t replaced() const { return std::int64_t(counters_.data_as<double>()[0]); }

  Parameters params_;
  std::vector<Layer> layers_;
  Tensor counters_;  // f64 on the host: units replaced so far, then one number per layer for the method

 private:
  Optimizer* base_ = nullptr;
};

}  // namespace eg
