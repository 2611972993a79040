// apps/explain/trace.cpp - see trace.h. The step is taken apart with the same pieces that training uses: the trainer's
// network and arena, a tape of its own for forward and backward, then Trainer::step for the update.
#include "apps/explain/trace.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/diagnosis/attention_maps.h"
#include "apps/run/run_folder.h"
#include "apps/trainer.h"
#include "autograd/functions.h"
#include "engine/parallel.h"

namespace eg {
namespace {

using nlohmann::json;
using List = std::vector<double>;

constexpr int kClasses = 4, kTasks = 2, kBatch = 16, kHead = 0, kPatch = 4, kWarmup = 280, kSteps = 300;
constexpr double kClipNorm = 1.0;
constexpr std::int64_t kPlace = 27;    // the patch that is followed: row 3, column 3 of 8 x 8
constexpr std::int64_t kFollowed = 0;  // which image of the batch

std::string text_of(double x) {
  char text[32];
  std::snprintf(text, sizeof text, std::abs(x) < 0.001 && x != 0.0 ? "%.3e" : "%.4f", x);
  return text;
}
double norm(const List& v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0)); }
List part(const List& v, std::int64_t begin, std::int64_t count) {
  return {v.begin() + begin, v.begin() + begin + count};
}

/// Collects lines and numbers.
class Page {
 public:
  void section(const std::string& name, const std::string& sentence) {
    section_ = name;
    text_ += cat(text_.empty() ? "" : "\n", ++sections_, "  ", name, ": ", sentence, '\n');
  }
  void words(const std::string& name, const std::string& value) { put(name, value, value); }
  void whole(const std::string& name, std::int64_t value) { put(name, std::to_string(value), value); }
  void number(const std::string& name, double value) { put(name, text_of(value), value); }
  /// Six numbers a line.
  void list(const std::string& name, const List& values) {
    std::string shown;
    for (std::size_t i = 0; i < values.size(); ++i)
      shown += cat(i == 0 ? "" : i % 6 ? "  " : "\n" + std::string(3 + kNames, ' '), text_of(values[i]));
    put(name, shown, values);
  }
  Trace finish() const { return {text_, json_.dump()}; }

 private:
  static constexpr std::size_t kNames = 40;  // columns for a line's name
  template <class Value>
  void put(const std::string& name, const std::string& shown, const Value& value) {
    text_ += cat("   ", name, std::string(name.size() < kNames ? kNames - name.size() : 1, ' '), shown, '\n');
    json_[section_][name] = value;
  }
  std::string text_, section_;
  json json_;
  int sections_ = 0;
};

struct Setting {
  std::shared_ptr<const Dataset> data;
  std::shared_ptr<const TaskStream> stream;
  ImageFormat format{3, 32};
};

Setting make_setting() {
  Setting s;
  s.data = open_dataset("procedural", "");
  StreamConfig c;
  c.tasks = kTasks, c.classes_per_task = kClasses, c.train_limit = 800, c.test_limit = 40;
  s.stream = make_stream(s.data, c);
  return s;
}

TrainerConfig trainer_config(const Setting& s, Device device) {
  TrainerConfig c;
  c.vit = vit_config("vit-ti", 32, kPatch, 32, 2, 2);
  c.vit.classes = kClasses;
  c.vit.precision = device.type == DeviceType::reference ? DType::f64 : DType::f32;
  c.device = device;
  c.method = parse_method(cat("arrow:window=4:warmup-steps=", kWarmup));
  c.lr = 2e-3, c.clip_norm = kClipNorm;
  const ChannelStats stats = channel_stats(*s.data, s.stream->task(0).train, s.format);
  c.mean = stats.mean, c.stddev = stats.stddev;
  return c;
}

LoaderConfig loader_config(const Setting& s, int task) {
  LoaderConfig c;
  c.format = s.format, c.batch = kBatch, c.task = std::uint32_t(task), c.workers = 0;
  c.augment = parse_augment("crop-flip", s.format.size);
  return c;
}

/// Learns a task for so many steps and leaves its loader at the next batch.
void learn(Trainer& trainer, Loader& loader, int steps) {
  for (int i = 0; i < steps;)
    if (const Batch* batch = loader.next()) trainer.step(*batch, 1.0), ++i;
}

const Batch& next(Loader& loader) {
  const Batch* batch = loader.next();
  return batch ? *batch : *loader.next();
}

Param& param(Trainer& t, const std::string& name) {
  for (Param* p : t.params())
    if (p->name == name) return *p;
  fail(Kind::internal, cat("the traced network has no parameter ", name));
}

void show_loader(Page& page, const Setting& s, const Task& task, const Batch& b, const Trainer& trainer) {
  page.section("loader", "which image, and where it is cut; all of it follows from the seed and the sample's number");
  page.words("task", task.name);
  page.whole("sample number", std::int64_t(b.first_sample) + kFollowed);
  const std::int32_t label = b.labels[kFollowed];
  page.whole("label", label);
  page.words("its class", s.data->class_name(task.classes[std::size_t(label)]));
  page.words("crop: top, left, flip",
             cat(b.crop[3 * kFollowed], ", ", b.crop[3 * kFollowed + 1], ", ", b.crop[3 * kFollowed + 2]));
  const VitContext c = trainer.context(true);
  page.list("pixel mean: red, green, blue", c.mean.to_host());
  page.list("pixel deviation", c.stddev.to_host());
  const std::uint8_t* const image = b.images.data() + kFollowed * s.format.bytes();
  List pixel;
  for (int channel = 0; channel < 3; ++channel)
    pixel.push_back(image[(channel * s.format.size + 16) * s.format.size + 16]);
  page.words("pixel in row 16, column 16", cat(pixel[0], " ", pixel[1], " ", pixel[2]));
}

/// What one forward pass shows of one image.
struct Seen {
  List tokens, logits;                   // [N, C] before the first block; [K]
  std::vector<List> qkv, hidden, after;  // by block: [N, 3C], [N, F], [N, C]
  List features;
  double loss = 0.0;  // mean over the batch
};

Tensor image_of(const Tensor& t) { return t.slice(kFollowed, 1); }

/// Forward with everything watched. The loss stands on `tape`.
Tensor forward_seen(Trainer& trainer, const StepInputs& in, Seen& seen) {
  Vit& model = trainer.model();
  VitContext c = trainer.context(true, in.crop);
  seen.tokens = image_of(forward(model.embed, model.config, in.images, c.mean, c.stddev, in.crop)).to_host();
  VitProbe probe;
  probe.qkv = [&](int, const Tensor& t) { seen.qkv.push_back(image_of(t).to_host()); };
  probe.hidden = [&](int, const Tensor& t) { seen.hidden.push_back(image_of(t).to_host()); };
  probe.tokens = [&](int, const Tensor& t) { seen.after.push_back(image_of(t).to_host()); };
  probe.features = [&](const Tensor& t) { seen.features = image_of(t).to_host(); };
  c.probe = &probe;
  const Tensor logits = forward(model, in.images, c);
  seen.logits = image_of(logits).to_host();
  const Tensor loss = cross_entropy(logits, in.labels, {}, {});
  seen.loss = loss.to_host()[0];
  return loss;
}

List softmax(const List& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  List p;
  for (const double x : logits) p.push_back(std::exp(x - largest));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= total;
  return p;
}

void show_tokens(Page& page, Trainer& trainer, const StepInputs& in, const Seen& seen) {
  const VitConfig& c = trainer.model().config;
  const VitContext context = trainer.context(true, in.crop);
  const List patches =
      image_of(patchify(in.images, c.patch, c.image_size, c.precision, context.mean, context.stddev, in.crop))
          .to_host();
  const std::int64_t values = std::int64_t(c.channels) * c.patch * c.patch;
  page.section("patches",
               cat(c.patches(), " squares of ", c.patch, " x ", c.patch, " pixels, ", values, " numbers each"));
  page.list(cat("patch ", kPlace, ", its first values"), part(patches, kPlace * values, 4));
  page.section("tokens",
               cat("a matrix makes ", c.dim, " numbers of each, a position is added, the class token comes first"));
  page.list(cat("token of patch ", kPlace, ", first values"), part(seen.tokens, (kPlace + 1) * c.dim, 4));
  page.number("its length", norm(part(seen.tokens, (kPlace + 1) * c.dim, c.dim)));
  page.list("class token, its first values", part(seen.tokens, 0, 4));
}

void show_attention(Page& page, const VitConfig& c, const Seen& seen) {
  const int block = c.depth - 1;
  const std::int64_t n = c.tokens(), width = c.dim / c.heads, packed = 3 * c.dim;
  const List& qkv = seen.qkv[std::size_t(block)];
  page.section("attention", cat("head ", kHead, " of block ", block, ", asked by the class token"));
  List logits;
  for (std::int64_t k = 0; k < n; ++k) {
    double dot = 0.0;
    for (std::int64_t d = 0; d < width; ++d)
      dot += qkv[std::size_t(kHead * width + d)] * qkv[std::size_t(k * packed + c.dim + kHead * width + d)];
    logits.push_back(dot / std::sqrt(double(width)));
  }
  const List p = softmax(logits);
  page.list("query, its first values", part(qkv, kHead * width, 4));
  page.list(cat("key of patch ", kPlace), part(qkv, (kPlace + 1) * packed + c.dim + kHead * width, 4));
  page.number("query . key / sqrt(D)", logits[kPlace + 1]);
  page.list("the row of logits, first tokens", part(logits, 0, 6));
  page.list("its softmax, first tokens", part(p, 0, 6));
  page.number(cat("share of patch ", kPlace), p[kPlace + 1]);
  std::vector<std::size_t> order(p.size() - 1);
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a + 1] > p[b + 1]; });
  List most;
  for (int i = 0; i < 4; ++i) most.push_back(p[order[std::size_t(i)] + 1]);
  page.words("patches with the largest shares", cat(order[0], ", ", order[1], ", ", order[2], ", ", order[3]));
  page.list("these shares", most);
  page.number("entropy over ln N (1: even)", normalised_entropy(p));
}

void show_mlp(Page& page, const VitConfig& c, const Seen& seen) {
  const int block = c.depth - 1;
  const List hidden = part(seen.hidden[std::size_t(block)], 0, c.hidden());
  page.section("MLP", cat("the class token's ", c.hidden(), " hidden units in block ", block));
  page.list("before GELU, the first units", part(hidden, 0, 4));
  List gelu;
  for (int i = 0; i < 4; ++i)
    gelu.push_back(hidden[std::size_t(i)] * 0.5 * std::erfc(-hidden[std::size_t(i)] / std::sqrt(2.0)));
  page.list("after GELU", gelu);
  page.whole("units above 0", std::count_if(hidden.begin(), hidden.end(), [](double x) { return x > 0.0; }));
  page.list(
      "length of the class token by block",
      {norm(part(seen.tokens, 0, c.dim)), norm(part(seen.after[0], 0, c.dim)), norm(part(seen.after[1], 0, c.dim))});
}

void show_loss(Page& page, const Seen& seen, std::int32_t label, double divisor) {
  page.section("loss", "one logit per class, softmax, and minus the logarithm of the label's probability");
  page.list("what the head reads, first values", part(seen.features, 0, 4));
  page.list("logits", seen.logits);
  List p = softmax(seen.logits);
  page.list("probabilities", p);
  page.number("loss of this image", -std::log(p[std::size_t(label)]));
  page.number("mean loss of the batch", seen.loss);
  p[std::size_t(label)] -= 1.0;
  for (double& x : p) x /= divisor;
  page.list("d loss / d logits", p);
}

/// Backward on the tape; each gradient group is noted when it is final.
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

ArrowState arrow_state(const Tensor& t) {
  ArrowState s;
  std::memcpy(&s, t.data(), sizeof s);
  return s;
}

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

/// A weight of one matrix, before the step.
struct WatchedWeight {
  std::string name, rule;
  double before = 0.0, gradient = 0.0;
};

WatchedWeight watch_weight(Trainer& t, const std::string& name, const std::string& rule) {
  const Param& p = param(t, name);
  return {name, rule, p.master.to_host()[0], p.grad.to_host()[0]};
}

/// Distance that the four attention matrices of a block have moved.
double moved_by(Trainer& trainer, int block, const List& before) {
  double squares = 0.0;
  for (const Param* p : trainer.params()) {
    if (p->block != block || (p->module != Module::qkv && p->module != Module::proj) || p->shape.rank() != 2) continue;
    const List now = p->master.to_host();
    for (std::size_t i = 0; i < now.size(); ++i) squares += std::pow(now[i] - before[std::size_t(p->offset) + i], 2);
  }
  return std::sqrt(squares);
}

}  // namespace

Trace trace_training_step(Device device) {
  set_num_threads(1);
  const Setting s = make_setting();
  Trainer trainer(trainer_config(s, device));
  const Task task = s.stream->task(0);
  Loader loader(s.data, task.train, {}, loader_config(s, 0));
  learn(trainer, loader, kSteps);
  const Batch& batch = next(loader);
  const StepInputs in = inputs_of(batch, {}, kClasses, device);
  const VitConfig& c = trainer.model().config;
  const std::int32_t label = batch.labels[kFollowed];

  Page page;
  show_loader(page, s, task, batch, trainer);
  {
    Tape tape;
    const Watched watched(tape, trainer.model(), false);
    Seen seen;
    const Tensor loss = forward_seen(trainer, in, seen);
    show_tokens(page, trainer, in, seen);
    show_attention(page, c, seen);
    show_mlp(page, c, seen);
    show_loss(page, seen, label, kBatch);
    show_backward(page, trainer, tape, loss);
  }
  const WatchedWeight weights[] = {watch_weight(trainer, "blocks.1.attn.proj.weight", "ARROW"),
                                   watch_weight(trainer, "head.weight", "AdamW")};
  const List before = trainer.arena().master.to_host();
  const double length = norm(trainer.arena().grad.to_host());
  page.number("length of the whole gradient", length);
  page.number("clip factor: 1 over it, at most 1", std::min(1.0, kClipNorm / length));
  trainer.step(batch, 1.0);
  show_arrow(page, trainer, "block1", moved_by(trainer, 1, before));
  page.section("update", "two weights before and after, what that changed, and the same batch once more");
  for (const WatchedWeight& w : weights) {
    const double now = param(trainer, w.name).master.to_host()[0];
    page.list(cat(w.name, "[0]"), {w.before, now, now - w.before});
    page.number(cat("  its gradient, for ", w.rule), w.gradient);
  }
  Seen again;
  forward_seen(trainer, in, again);
  page.list("probabilities", softmax(again.logits));
  page.number("mean loss of the batch", again.loss);
  return page.finish();
}

int trace_step(const std::string& json_file) {
  // Vectors of another width sum in another order, and three hundred updates make a last bit a first digit: the plainest
  // instruction set is the one that every machine has. No kernel has run yet, so it is not chosen yet.
  ::setenv("EVERGRAD_CPU", "generic", 1);
  const Trace trace = trace_training_step(kCpu);
  std::cout << cat("A ViT 32/", kPatch, " of width 32 with 2 blocks and 2 heads has learned ", kSteps, " batches of ",
                   kBatch, " images of a stream's\nfirst task: ", kWarmup, " by AdamW, ARROW's warm-up here, then ",
                   kSteps - kWarmup,
                   " by ARROW with a window of 4. This is its next\nstep; docs/tour.md explains every line.\n\n")
            << trace.text;
  if (!json_file.empty()) write_json(json_file, json::parse(trace.json));
  return 0;
}

}  // namespace eg
