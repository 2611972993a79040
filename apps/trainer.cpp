// apps/trainer.cpp - one training step, in the order of methods.md 0.4.
#include "apps/trainer.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include "apps/weights/model_weights.h"
#include "autograd/functions.h"
#include "engine/collectives/agree.h"
#include "engine/collectives/watchdog.h"
#include "engine/kernel_choices.h"
#include "layers/freeze.h"

namespace eg {
namespace {

double sum(const Tensor& t) {
  double total = 0.0;
  for (const double x : t.to_host()) total += x;
  return total;
}

}  // namespace

namespace {
/// bf16 gradients on devices that are bound by memory; the cpu's updates are not, and sums over passes need fp32.
bool narrow_gradients(const TrainerConfig& c) { return !c.device.is_host() && c.accumulate == 1; }
}  // namespace

VitConfig model_of(const TrainerConfig& config) {
  VitConfig c = config.vit;
  const ModelChange change = model_change(config.method);
  if (change.crelu) c.activation = Activation::crelu;
  c.prompts = change.prompts;
  return c;
}

std::string method_settings(const TrainerConfig& config) {
  Vit model = make_vit(model_of(config));
  const std::vector<Param*> params = parameters(model);
  freeze(params, config.freeze);
  check(!config.init || model.config.activation == config.init->config.activation, Kind::usage, [&] {
    return cat("--init ", config.init->source,
               " brings units with GELU, which crelu replaces; leave out one of the two");
  });
  ParamArena arena;
  arena.build(params, config.device, config.vit.precision, narrow_gradients(config));
  return make_optimizer(config.method, {params, &arena, config.vit.depth}, config.lr, config.weight_decay)->describe();
}

std::string caution(const TrainerConfig& config) {
  if (config.init || !model_change(config.method).prompts.pool) return {};
  return "warning: l2p freezes the network that it finds, and this one's weights are random; read its accuracy as "
         "that of random features, or start from trained weights with --init FILE";
}

Trainer::Trainer(const TrainerConfig& config)
    : config_(config),
      model_(make_vit(model_of(config))),
      graph_(config.device, config.record_steps),
      results_(config.device) {
  visit_params(model_, [&](Param& p) { params_.push_back(&p); });
  freeze(params_, config.freeze);
  const DType activation = config.device.type == DeviceType::reference ? DType::f64 : config.vit.precision;
  ranks_ = config.ranks ? config.ranks : single_rank();
  arena_.build(params_, config.device, activation, narrow_gradients(config));
  arena_.initialise(params_, config.seed);
  if (config.init) load_weights(*config.init, params_);
  arena_.refresh_work();

  host_record_ = Tensor::zeros({std::int64_t(sizeof(StepRecord))}, DType::u8, kCpu);
  new (host_record_.data()) StepRecord{};
  record().seed = config.seed;
  record().max_norm = config.clip_norm;
  device_record_ = config.device.is_host()
                       ? host_record_
                       : Tensor::zeros({std::int64_t(sizeof(StepRecord))}, DType::u8, config.device);

  const DType stat = config.device.statistic();
  const std::int64_t channels = std::int64_t(config.mean.size());
  mean_ = Tensor::from(config.mean, {channels}, stat, config.device);
  stddev_ = Tensor::from(config.stddev, {channels}, stat, config.device);
  for (const Param* p : params_)
    if (!p->frozen) all_gradients_.push_back({p->offset, p->offset + p->size()});

  graph_.watched_by(watchdog_of(*ranks_));
  if (ranks_->size() > 1) graph_.agreed_by([this](bool failed) { return on_any_rank(*ranks_, failed); });
  buckets_.emplace(params_, arena_, config.vit.depth, ranks_, GradientBuckets::kLeastBytes, config.reduce_bf16);
  const Division& division = shares_.emplace(buckets_->division());
  if (config.zero && ranks_->size() > 1) {
    check_divides(config.method);
    division_ = division;
    divided_ = std::make_unique<DividedWeights>(arena_, params_, config.vit.depth, division);
  }
  for (const Division::Piece& p : division.pieces)
    for (const Segment& s : all_gradients_)
      if (const Division::Piece own = p.within(s.begin, s.end); own.size > 0)
        own_gradients_.push_back({own.begin, own.begin + own.size});
  // Ranks whose sums have an order take those over elements by the same pieces with --zero 0 as with --zero 1.
  const bool by_pieces = ranks_->size() > 1 && (division_ || ranks_->deterministic());
  optimizer_ = make_optimizer(config.method,
                              {.list = params_,
                               .arena = &arena_,
                               .depth = config.vit.depth,
                               .division = division_ ? &*division_ : nullptr,
                               .sums = by_pieces ? &*shares_ : nullptr},
                              config.lr, config.weight_decay);
  check(ranks_->size() == 1 || !model_.config.prompts.batchwise || !model_.config.prompts.pool, Kind::usage, [&] {
    return cat(to_text(config.method),
               " chooses prompts by the vote of a whole batch, of which each rank sees a part; use "
               "l2p:batchwise=0 or one rank");
  });
  if (const std::int64_t images = optimizer_->probe_images())
    probe_ = std::make_unique<ActivityProbe>(model_.config, images, config.device);
  if (config.ema > 0.0) ema_ = std::make_unique<Ema>(arena_, config.ema, division_);
}

Trainer::~Trainer() = default;

void Trainer::upload_record() {
  if (!config_.device.is_host())
    runtime(config_.device).copy_from_host(device_record_.data(), host_record_.data(), sizeof(StepRecord), {});
}

std::vector<double> Trainer::first_values(const Param& p) const {
  return p.imported ? config_.init->tensors.at(p.name).to_host() : ParamArena::draw(p, config_.seed);
}

namespace {
Tensor rows(const Tensor& t, std::int64_t begin, std::int64_t end) {
  return t ? t.slice(begin, end - begin) : Tensor{};
}
}  // namespace

VitContext Trainer::context(bool training, const Tensor& crop) const {
  VitContext c;
  c.training = training;
  c.step = static_cast<const StepRecord*>(device_record_.data());
  c.mean = mean_;
  c.stddev = stddev_;
  if (training) c.crop = crop;
  if (divided_)
    c.reads = [this, training](int block) {
      const InPart waiting(training ? config_.listener : nullptr, StepPart::wait, {}, block);
      divided_->wait_for(block, {});
    };
  return c;
}

/// The part [begin, end) of the batch's mean loss.
Trainer::Loss Trainer::loss_of(const StepInputs& in, std::int64_t begin, std::int64_t end, bool training,
                               Tensor* correct) {
  Tensor added;
  VitContext c = context(training, rows(in.crop, begin, end));
  c.batch = double(in.global_count), c.prompt_loss = &added;
  const Tensor logits = forward(model_, rows(in.images, begin, end), c);
  const Tensor loss = cross_entropy(logits, rows(in.labels, begin, end), rows(in.soft_labels, begin, end),
                                    in.class_mask, config_.smoothing, double(in.global_count), correct);
  return {loss, added ? add(loss, added) : loss};
}

namespace {

/// While it lives, the forward pass reads other weights, laid out as the arena, and does not count hidden units again.
class Elsewhere {
 public:
  Elsewhere(const std::vector<Param*>& params, const Tensor& weights) : params_(params) {
    for (Param* p : params_) {
      own_.emplace_back(p->value, p->sums);
      p->value = weights.slice(p->offset, p->size()).reshape(p->shape), p->sums = {};
    }
  }
  ~Elsewhere() {
    for (std::size_t i = 0; i < params_.size(); ++i)
      params_[i]->value = own_[i].first, params_[i]->sums = own_[i].second;
  }
  Elsewhere(const Elsewhere&) = delete;
  Elsewhere& operator=(const Elsewhere&) = delete;

 private:
  const std::vector<Param*>& params_;
  std::vector<std::pair<Tensor, UnitSums>> own_;  // value, counters
};

}  // namespace

/// Forward and backward: the whole batch's gradient, summed over the ranks that share it; in a divided training step each rank
/// has the sums of its pieces. `out` receives this rank's losses
/// and counts; where it is given, a bad loss on a host device stops the run (of one rank; several must stop together).
/// on_gradient_final hears of every group whose gradient is final, in the last pass.
void Trainer::enqueue_gradient(const StepInputs& in, StepOutputs* out, bool training,
                               const GradientBuckets::Reduced& on_gradient_final) {
  // Gradient accumulation: the mean over the whole batch, split into passes, is the sum of the parts over one divisor.
  const std::int64_t parts = std::min<std::int64_t>(config_.accumulate, in.count);
  kernel_choices(config_.device).trust_watched(record().skipped == 0);
  if (in.shared) buckets_->begin(divided_ && training);
  if (parts ==
      0) {  // a rank without images: the others' gradient is the whole, and no forward pass waits for the weights
    arena_.grad.set_zero();
    if (divided_) divided_->wait_for(config_.vit.depth, {});
  }
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t begin = in.count * part / parts, end = in.count * (part + 1) / parts;
    Tape tape;
    const Watched watched(tape, model_, part > 0);
    StepListener* const listener = config_.listener;
    if (part + 1 == parts)
      tape.on_gradient_final([&](int group) {
        if (listener) listener->end(StepPart::backward, group, {});
        in.shared ? buckets_->local_final(group, {}, on_gradient_final) : on_gradient_final(group, {});
        if (listener) listener->begin(StepPart::backward, {});
      });
    Tensor correct;
    Loss loss;
    {
      const InPart forward(listener, StepPart::forward);
      loss = loss_of(in, begin, end, training, &correct);
    }
    if (out) {
      if (config_.device.is_host() && !in.shared)
        check_loss(false, sum(loss.reported), sum(loss.reported), [&] {
          return divergence(in, training ? "the loss" : "the loss of the new task", training, sum(loss.reported));
        });
      out->losses.push_back(loss.reported), out->corrects.push_back(correct);
    }
    const InPart in_backward(listener, StepPart::backward);
    backward(tape, loss.total);
  }
  if (in.shared) buckets_->finish({}, on_gradient_final);
}

/// The global norm, the clip factor and whether all is finite. Of several ranks each adds up the squares of its own pieces, and the
/// sums are added in ascending order of ranks: whether a rank has the rest of the gradient too (--zero 0) or not, the bits are
/// the same, and all ranks skip a step or none does.
void Trainer::measure_norm(const StepInputs& in, const StepContext& ctx) const {
  EVERGRAD_CALL(config_.device, global_norm,
                GlobalNorm{.grad = arena_.grad.view(),
                           .segments = in.shared ? own_gradients_ : all_gradients_,
                           .step = ctx.device_step});
  if (!in.shared) return;
  ranks_->all_reduce(&ctx.device_step->grad_norm_sq, 1, DType::f64, {});
  EVERGRAD_CALL(config_.device, global_norm, GlobalNorm{.step = ctx.device_step});
}

/// Activity counters of hidden units go on from step to step: the first rank's hold what was counted so far, the others
/// begin at zero, so that their sum counts everybody's images once.
void Trainer::begin_counting(const StepInputs& in) {
  if (!in.shared || ranks_->rank() == 0) return;
  for (const Param* p : params_)
    for (const Tensor* t : {&p->sums.absolute, &p->sums.positive, &p->sums.value, &p->sums.rows})
      if (*t) t->set_zero();
}
void Trainer::finish_counting(const StepInputs& in) {
  if (!in.shared) return;
  for (const Param* p : params_)
    for (const Tensor* t : {&p->sums.absolute, &p->sums.positive, &p->sums.value, &p->sums.rows})
      if (*t) ranks_->all_reduce(t->data(), t->size(), t->dtype(), {});
}

/// Everything that the device does in a step. Only enqueues, so that it can be recorded.
void Trainer::enqueue(const StepInputs& in, StepOutputs& out, StepContext& ctx) {
  ctx.images = in.global_count;
  const auto observe = [&](int group, Stream stream) {
    StepContext there = ctx;
    there.stream = stream;
    const InPart observing(config_.listener, StepPart::observe, stream, group);
    optimizer_->on_gradient_final(group, there);
  };
  const auto unobserved = [](int, Stream) {};
  // A recording holds the gathering, so that the steps that it stands for have it, too.
  if (divided_ && (to_gather_ || !config_.device.is_host())) divided_->gather_behind({});
  begin_counting(in);
  if (optimizer_->ascends()) {
    // The losses that are reported are those of the weights as they are.
    enqueue_gradient(in, &out, true, unobserved);
    const Elsewhere elsewhere(params_, optimizer_->ascend(ctx));
    enqueue_gradient(in, nullptr, true, observe);
  } else {
    enqueue_gradient(in, &out, true, observe);
  }
  finish_counting(in);
  const InPart updating(config_.listener, StepPart::update);
  measure_norm(in, ctx);
  optimizer_->step(ctx);
  if (ema_) ema_->update(ctx);
}

StepResult Trainer::step(const Batch& batch, double lr_factor, const Tensor& class_mask, const NextBatch& next) {
  StepContext ctx{static_cast<StepRecord*>(device_record_.data()), &record(), lr_factor, {}};
  if (probe_) {
    probe_->offer(batch, *ranks_);
    ctx.active_share = [this] { return probe_->active_share(model_, context(false)); };
  }
  StepResult result;
  const std::int64_t updates = optimizer_->updates_from_batch(ctx);
  for (std::int64_t i = 0; i < updates; ++i) {
    const StepResult r = update(batch, lr_factor, class_mask, i + 1 == updates ? next : NextBatch{});
    if (i == 0)
      result = r;
    else
      result.applied &= r.applied;
  }
  return result;
}

StepResult Trainer::update(const Batch& batch, double lr_factor, const Tensor& class_mask, const NextBatch& next) {
  StepContext ctx{static_cast<StepRecord*>(device_record_.data()), &record(), lr_factor, {}};
  ctx.images = batch.global_count;  // here, because a replayed step is not enqueued again
  record().first_sample = std::int64_t(batch.first_sample);
  {
    const InPart preparing(config_.listener, StepPart::prepare);
    optimizer_->prepare(ctx);
    upload_record();
  }
  if (next) graph_.expect_ahead(batch, model_.config.classes);
  const StepOutputs& out = graph_.run(batch, class_mask, model_.config.classes,
                                      [&](const StepInputs& in, StepOutputs& outputs) { enqueue(in, outputs, ctx); });

  to_gather_ = bool(divided_);
  if (const Batch* const ahead = next ? next() : nullptr) graph_.upload_ahead(*ahead, model_.config.classes);

  const InPart finishing(config_.listener, StepPart::finish);
  results_.read(out, device_record_);
  const double mine = results_.loss(), correct = results_.correct();
  const bool shared = batch.ranks > 1;
  double totals[] = {mine, correct};
  sum_shared(shared, totals);
  StepResult result{.loss = totals[0], .correct = std::int64_t(totals[1]), .count = batch.global_count};
  check_loss(shared, mine, result.loss, [&] {
    return divergence(inputs_of(batch, class_mask, model_.config.classes, config_.device), "the loss", true, mine);
  });
  record() = results_.record();  // not earlier: what diverged leaves the record as it was
  result.applied = record().finite != 0;
  if (!result.applied) distrust_kernels();
  optimizer_->after_step(ctx);
  record().step += 1;
  if (record().skipped_in_a_row >= 20)
    throw Diverged(cat("20 updates in a row were skipped because the gradient was not finite (last at step ",
                       record().step, "); use a smaller --lr"));
  return result;
}

/// A gradient was not finite, and a library's kernel may be why (cuDNN's attention has been, on some shapes): the run does
/// without it from here on. All ranks skip the same steps, so all of them come here.
void Trainer::distrust_kernels() {
  const std::vector<KernelChoice> changed = kernel_choices(config_.device).trust_watched(false);
  if (changed.empty()) return;
  graph_.forget();
  std::string calls;
  for (const KernelChoice& c : changed)
    calls += cat(calls.empty() ? "" : "; ", c.call, ": ", c.chosen, " -> ", c.instead);
  std::cerr << "evergrad: the gradient of step " << record().step
            << " was not finite, and the step was skipped. A library's "
            << "kernel may be why: evergrad's own take its place for the rest of the run (" << calls << ")\n";
}

void Trainer::sum_shared(bool shared, std::span<double> values) const {
  check(!shared || ranks_->size() > 1, Kind::internal,
        [] { return std::string("a batch is shared among ranks, but the trainer knows of no others"); });
  if (shared) ranks_->sum_on_host(values);
}

/// Throws Diverged, with the same text on all ranks, when the loss of all of them is not finite.
void Trainer::check_loss(bool shared, double mine, double total, const std::function<std::string()>& explain) const {
  if (std::isfinite(total)) return;
  const std::string text = std::isfinite(mine) ? std::string() : explain();
  throw Diverged(shared ? first_text(*ranks_, text) : text);
}

std::string Trainer::divergence(const StepInputs& in, const std::string& which, bool training, double loss) {
  Tape tape;
  tape.watch_nonfinite(true);
  {
    const Watched watched(tape, model_, false);
    loss_of(in, 0, in.count, training, nullptr);
  }
  const std::string op = tape.first_nonfinite_op();
  return cat(which, " is ", loss, " at step ", record().step, " (seed ", record().seed, ", first sample ",
             record().first_sample, "); first operation with a non-finite result: ",
             op.empty() ? "none, the weights themselves are not finite" : op, "; use a smaller --lr");
}

Evaluation Trainer::evaluate(Loader& loader, const Tensor& class_mask) {
  gather_weights();
  const std::unique_ptr<Ema::Applied> averaged = ema_ ? ema_->apply() : nullptr;
  const bool shared = loader.config().ranks > 1;
  double totals[] = {0.0, 0.0, 0.0};  // loss, correct, images
  std::string bad;                    // why a loss is not finite
  while (const Batch* batch = loader.next()) {
    const StepInputs in = inputs_of(*batch, class_mask, model_.config.classes, config_.device);
    Tensor correct;
    const Tensor logits = forward(model_, in.images, context(false));
    const Tensor loss = cross_entropy(logits, in.labels, {}, class_mask, 0.0, 1.0, &correct);
    const double value = sum(loss);
    totals[0] += value, totals[1] += sum(correct), totals[2] += double(batch->count);
    if (std::isfinite(value)) continue;
    bad = divergence(in, "the test loss", false, value);
    break;
  }
  const double mine = totals[0];
  sum_shared(shared, totals);
  check_loss(shared, mine, totals[0], [&] { return bad; });
  Evaluation e{.count = std::int64_t(totals[2])};
  if (e.count) e.loss = totals[0] / double(e.count), e.accuracy = totals[1] / double(e.count);
  return e;
}

/// Leaves the gradient of one batch in the arena, and everything else as it was: nothing is dropped, cropped or counted.
void Trainer::gradient_alone(const Batch& batch, const Tensor& class_mask) {
  gather_weights();
  std::vector<std::pair<Param*, UnitSums>> watched;
  for (Param* p : params_)
    if (p->sums) watched.emplace_back(p, std::exchange(p->sums, {}));
  const StepInputs in = inputs_of(batch, class_mask, model_.config.classes, config_.device);
  StepOutputs out;
  enqueue_gradient(in, &out, false, [](int, Stream) {});
  double mine = 0.0;
  for (const Tensor& t : out.losses) mine += sum(t);
  double total[] = {mine};
  sum_shared(in.shared, total);
  for (auto& [p, sums] : watched) p->sums = std::move(sums);
  check_loss(in.shared, mine, total[0], [&] { return divergence(in, "the loss of the new task", false, mine); });
}

}  // namespace eg
