// apps/predict/network.cpp - see network.h.
#include "apps/predict/network.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "apps/diagnosis/attention_flow.h"
#include "apps/setup.h"
#include "apps/weights/init_flags.h"
#include "autograd/functions.h"
#include "autograd/tape.h"

namespace eg {
namespace {

/// Flags, then the file, then fp32 where neither the flags nor the device say otherwise.
void configure(CLI::App& app, MachineOptions& machine, const std::string& file, const std::vector<std::string>& flags) {
  std::vector<std::string> given(flags.rbegin(), flags.rend());  // CLI11 takes them last first
  app.parse(given);
  const bool chosen = app.get_option("--precision")->count() > 0;
  apply_config(app, file);
  if (!chosen) machine.precision = machine.device == "reference" ? "auto" : "fp32";
}

std::vector<std::string> numbers(std::int64_t count) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

void name_classes(std::vector<std::string>& names, const Dataset& data, const Task& task) {
  for (std::size_t k = 0; k < task.classes.size(); ++k) {
    std::string name = data.class_name(task.classes[k]);
    if (!name.empty()) names[std::size_t(task.head_labels[k])] = std::move(name);
  }
}

void open_run(TrainedNetwork& n, const ContinualOptions& options, const std::string& checkpoint) {
  n.run = std::make_unique<OpenedRun>(options, checkpoint);
  OpenedRun& run = *n.run;
  run.restore();
  if (const SafetensorsEntry* average = run.checkpoint.tensors.find("ema")) {
    run.checkpoint.tensors.load_into(*average, run.trainer.arena().master);
    run.trainer.arena().refresh_work();
  }
  n.description = run.describe();
  n.task = run.stream->task(run.now);
  n.class_mask = run.plan.test_mask(n.task);
  n.classes = numbers(run.stream->head_classes());
  const ContinualOptions& o = run.plan.options();
  // Random labels mean nothing outside their task, and heads that outlive a task know the classes of all so far.
  if (parse_protocol(o.protocol) == Protocol::random_label) return;
  if (o.head == "growing" || o.head == "masked")
    for (std::int64_t t = 0; t < run.now; ++t) name_classes(n.classes, *run.plan.data(), run.stream->task(t));
  name_classes(n.classes, *run.plan.data(), n.task);
}

void open_training(TrainedNetwork& n, const TrainOptions& options) {
  n.training = std::make_unique<OpenedTraining>(options);
  n.task = n.training->task;
  n.description = cat(n.training->options.method, ", seed ", n.training->options.seed);
  n.classes = numbers(n.task.head_classes);
  name_classes(n.classes, *n.training->data, n.task);
}

std::vector<double> softmax(const double* logits, std::size_t count, const std::vector<double>& mask) {
  const auto allowed = [&](std::size_t k) { return mask.empty() || mask[k] != 0.0; };
  double largest = -INFINITY, total = 0.0;
  for (std::size_t k = 0; k < count; ++k) {
    check(std::isfinite(logits[k]), Kind::numeric, [&] {
      return cat("the network's output ", k, " is ", logits[k],
                 ": its weights have diverged; give an older checkpoint");
    });
    if (allowed(k)) largest = std::max(largest, logits[k]);
  }
  std::vector<double> p(count, 0.0);
  for (std::size_t k = 0; k < count; ++k)
    if (allowed(k)) total += p[k] = std::exp(logits[k] - largest);
  for (double& x : p) x /= total;
  return p;
}

std::vector<double> mask_of(const TrainedNetwork& n) {
  return n.class_mask ? n.class_mask.to_host() : std::vector<double>{};
}

void check_room(const VitConfig& c) {
  const double maps = 2.0 * c.depth * c.heads * double(c.tokens()) * double(c.tokens()) * sizeof(double);
  check(maps <= double(std::int64_t(4) << 30), Kind::usage, [&] {
    return cat("the attention maps of ", c.depth, " blocks with ", c.heads, " heads over ", c.tokens(),
               " tokens, and their gradients, need ", std::int64_t(maps) >> 20,
               " MiB; 4096 are allowed. Leave out --attention");
  });
}

}  // namespace

TrainedNetwork open_network(const std::string& checkpoint, const std::string& config,
                            const std::vector<std::string>& flags) {
  const std::string file = config.empty() ? config_of(checkpoint) : config;
  check(!file.empty(), Kind::usage, [&] {
    return cat("no config.toml lies beside ", checkpoint, " or in the two folders above it; ",
               is_weights_file(checkpoint) ? "such a file of weights answers once a run has started from it (evergrad "
                                             "train --init)"
                                           : "give --config FILE");
  });
  TrainedNetwork n;
  std::string unused;
  if (Config::read(file).find("protocol")) {
    ContinualOptions o;
    CLI::App app("", "continual");
    add_continual_options(app, o, unused);
    configure(app, o.machine, file, flags);
    o.model.init.clear();  // the checkpoint holds all weights
    open_run(n, o, checkpoint);
  } else {
    TrainOptions o;
    o.checkpoint = checkpoint;
    CLI::App app("", "train");
    add_train_options(app, o, unused);
    app.add_option("--checkpoint-seconds", o.checkpoint_seconds);  // the file names it
    configure(app, o.machine, file, flags);
    open_training(n, o);
  }
  const VitConfig& c = n.trainer().model().config;
  n.format = {c.channels, c.image_size};
  return n;
}

Answers ask(TrainedNetwork& n, const Tensor& images) {
  Trainer& trainer = n.trainer();
  const Tensor logits = forward(trainer.model(), images.to(trainer.device()), trainer.context(false));
  const std::vector<double> values = logits.to_host(), mask = mask_of(n);
  const auto classes = std::size_t(logits.dim(1));
  Answers a;
  for (std::int64_t i = 0; i < logits.dim(0); ++i)
    a.probabilities.push_back(softmax(values.data() + std::size_t(i) * classes, classes, mask));
  return a;
}

Sight look(TrainedNetwork& n, const Tensor& image) {
  Trainer& trainer = n.trainer();
  Vit& model = trainer.model();
  const VitConfig& c = model.config;
  check(image.dim(0) == 1, Kind::shape, [&] { return cat("look takes one image, got ", image.dim(0)); });
  check_room(c);
  const Device device = trainer.device();
  std::vector<std::vector<double>> qkv{std::size_t(c.depth)};
  // A zero is added to what every block mixes: its gradient is the one that arrives there (layers/vit.h).
  std::vector<Tensor> zeros, arrived;
  Tape tape;
  for (int b = 0; b < c.depth; ++b) {
    zeros.push_back(Tensor::zeros({1, c.tokens(), c.dim}, trainer.params()[0]->value.dtype(), device));
    arrived.push_back(Tensor::zeros(zeros.back().shape(), zeros.back().dtype(), device));
    tape.watch(zeros.back(), arrived.back().view());
  }
  VitProbe probe;
  probe.qkv = [&](int block, const Tensor& t) { qkv[std::size_t(block)] = t.to_host(); };
  probe.mixed = [&](int block, const Tensor& mixed) { return add(mixed, zeros[std::size_t(block)]); };
  VitContext context = trainer.context(false);
  context.probe = &probe;
  const bool recompute = std::exchange(model.config.recompute, false);  // it would run the probe twice
  const Tensor logits = forward(model, image.to(device), context);
  model.config.recompute = recompute;

  Sight s;
  s.probabilities = softmax(logits.to_host().data(), std::size_t(logits.dim(1)), mask_of(n));
  std::vector<double> one(s.probabilities.size(), 0.0);
  one[likeliest(s.probabilities, 1)[0]] = 1.0;
  const std::vector<Tensor> outputs{logits}, gradients{Tensor::from(one, logits.shape(), logits.dtype(), device)};
  backward(tape, outputs, gradients);
  std::vector<std::vector<double>> slopes;
  for (int b = 0; b < c.depth; ++b) {
    s.blocks.push_back(attention_maps(qkv[std::size_t(b)], 1, c.tokens(), c.heads));
    slopes.push_back(
        attention_gradient(qkv[std::size_t(b)], arrived[std::size_t(b)].to_host(), 1, c.tokens(), c.heads));
  }
  const Readout readout = n.readout();
  s.rollout = attention_rollout(s.blocks, readout);
  s.relevance = attention_relevance(s.blocks, slopes, readout);
  return s;
}

std::vector<std::size_t> likeliest(const std::vector<double>& probabilities, std::size_t count) {
  std::vector<std::size_t> order(probabilities.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return probabilities[a] > probabilities[b]; });
  order.resize(std::min(count, order.size()));
  return order;
}

}  // namespace eg
