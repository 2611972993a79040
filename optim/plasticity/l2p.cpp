// optim/plasticity/l2p.cpp - learning to prompt (Wang et al. 2022, arXiv:2112.08654): the network stays as it is, and tasks
// are learned by a pool of prompts, their keys and the head (methods.md B.13). The network does it (layers/prompt.h); here
// are its numbers, and the optimizer that begins anew with every task, as published.
#include "optim/plasticity/intervention.h"

namespace eg {
namespace {

struct Options {
  PromptPool pool;
  bool clear_optimizer = true;
};

Options read(const MethodSpec& spec) {
  OptionReader r(spec);
  Options o;
  // The rank of every key is counted against all others, for every image.
  o.pool.pool = int(r.integer("pool", 10, 1, 1024));
  o.pool.length = int(r.integer("length", o.pool.length, 1, 1024));
  o.pool.select = int(r.integer("select", std::min(4, o.pool.pool), 1, 1024));
  o.pool.pull = r.number("lambda", o.pool.pull, 0.0, 1e6);
  o.pool.batchwise = r.flag("batchwise", o.pool.batchwise);
  o.pool.batchwise_test = r.flag("batchwise-test", o.pool.batchwise_test);
  o.clear_optimizer = r.flag("clear-optimizer", true);
  r.number("lr", 0.0, 0.0, 1e6);  // of the update rule that it brings along, which reads it
  r.finish();
  check(o.pool.select <= o.pool.pool, Kind::usage, [&] {
    return cat("l2p: select=", o.pool.select, " prompts cannot be chosen from pool=", o.pool.pool,
               "; use a larger pool or select fewer");
  });
  return o;
}

class L2p final : public Intervention {
 public:
  explicit L2p(const MethodSpec& spec) : options_(read(spec)) {}
  std::string name() const override { return "l2p"; }
  Stage stage() const override { return Stage::scaling; }
  bool rewrites_weights() const override { return false; }
  bool clears_optimizer() const override { return options_.clear_optimizer; }
  std::string describe() const override {
    const PromptPool& p = options_.pool;
    const char* const together =
        p.batchwise ? p.batchwise_test ? ", the same for a batch" : ", the same for a training batch" : "";
    return cat("L2P: ", p.select, " of ", p.pool, " prompts of ", p.length, " tokens for every image", together,
               ", keys pulled by ", p.pull, ", all else frozen but the head",
               options_.clear_optimizer ? ", moments cleared at a new task" : "");
  }

 private:
  Options options_;
};

}  // namespace

void l2p_model(const MethodSpec& spec, ModelChange& change) { change.prompts = read(spec).pool; }

std::unique_ptr<Intervention> make_l2p(const MethodSpec& spec, const Parameters&) {
  return std::make_unique<L2p>(spec);
}

}  // namespace eg
