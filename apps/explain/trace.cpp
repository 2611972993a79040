// apps/explain/trace.cpp - see trace.h. The step is taken apart with the same pieces that training uses: the trainer's
// network and arena, a tape of its own for forward and backward, then Trainer::step for the update.
#include "apps/explain/trace.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "apps/explain/trace_parts.h"
#include "apps/run/run_folder.h"
#include "engine/parallel.h"

namespace eg {
namespace {

using namespace traced;
using nlohmann::json;

constexpr int kClasses = 4, kTasks = 2, kBatch = 16, kPatch = 4, kWarmup = 280, kSteps = 300;
constexpr double kClipNorm = 1.0;

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
