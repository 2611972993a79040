// apps/examples/train_vit.cpp - a Vision Transformer from data to accuracy, every step of the loop in view.
//
//   build/train_vit                          ten classes of made-up images: a few seconds
//   build/train_vit --data DIR --epochs 10   CIFAR-100: the folder with train.bin and test.bin
#include <cmath>
#include <cstdio>
#include <map>
#include <string>

#include <evergrad/autograd/functions.h>
#include <evergrad/data/loader.h>
#include <evergrad/engine/rng.h>
#include <evergrad/layers/vit.h>
#include <evergrad/optim/optimizer.h>

using namespace eg;

/// Data of one's own is a class like this one: gratings in noise, whose class is the direction of their stripes. Image i
/// is a function of i (every random number has a key and an index), so nothing is stored and every run sees the same.
class Gratings final : public Dataset {
 public:
  std::string name() const override { return "gratings"; }
  int classes() const override { return 10; }
  std::string class_name(int c) const override { return cat(c * 18, " degrees"); }
  std::int64_t size(Split split) const override { return split == Split::train ? 2000 : 500; }
  std::int32_t label(Split, std::int64_t i) const override { return std::int32_t(i % classes()); }
  std::vector<std::int64_t> indices_of(Split split, int c) const override {
    std::vector<std::int64_t> all;
    for (std::int64_t i = c; i < size(split); i += classes()) all.push_back(i);
    return all;
  }
  ImageFormat native() const override { return {.channels = 3, .size = 16}; }
  void image(Split split, std::int64_t i, ImageFormat f, std::uint8_t* out) const override {  // planar [C, S, S]
    const Key draw = key(/*seed=*/1, "gratings", to_string(split), std::uint32_t(i));
    const double angle = label(split, i) * M_PI / classes(), phase = 2 * M_PI * draw.uniform(0);
    for (std::int64_t at = 0; at < f.bytes(); ++at) {
      const double x = double(at % f.size), y = double(at / f.size % f.size);
      const double stripes = std::sin(phase + M_PI / 3 * (std::cos(angle) * x + std::sin(angle) * y));
      out[at] = std::uint8_t(128 + 50 * stripes + 70 * (draw.uniform(std::uint64_t(1 + at)) - 0.5));
    }
  }
};

/// The images of a batch as a tensor u8 [B, 3, S, S], and their labels i32 [B].
Tensor images_of(const Batch& b) {
  return Tensor::from(std::span(b.images.data(), b.images.size()), {b.count, b.channels, b.size, b.size}, kCpu);
}
Tensor labels_of(const Batch& b) { return Tensor::from(std::span<const std::int32_t>(b.labels), {b.count}, kCpu); }

int run(const std::string& dir, int epochs) {
  const std::uint64_t seed = 1;  // of the weights, the order of the images and their augmentation

  // Data: a set, the one task of learning it, and a loader that prepares batches in the background.
  std::shared_ptr<const Dataset> data = std::make_shared<Gratings>();
  if (!dir.empty()) data = open_dataset("cifar100", dir);
  const ImageFormat format = data->native();
  const Task task = whole_dataset(*data);
  Loader train(data, task.train, task.transform,
               {.format = format, .epochs = epochs, .seed = seed, .augment = parse_augment("crop", format.size)});

  // Model: a preset with its sizes replaced. The arena holds all weights, and all gradients, side by side.
  VitConfig config = vit_config("vit-ti", format.size, /*patch=*/4, /*dim=*/64, /*depth=*/2, /*heads=*/4);
  config.classes = int(task.head_classes);
  Vit model = make_vit(config);
  const std::vector<Param*> params = parameters(model);
  ParamArena arena;
  arena.build(params, kCpu, config.precision);
  arena.initialise(params, seed);
  std::printf("%s\n", config.describe().c_str());

  // Optimizer: any method of `evergrad continual --list-methods`. What changes from step to step (rates, counts, the
  // gradient's norm) lives in one record, which kernels read on the device.
  const auto optimizer = make_optimizer(parse_method("adamw"), {params, &arena, config.depth}, /*lr=*/2e-3, 0.05);
  StepRecord record{.seed = seed, .max_norm = 1.0};
  StepContext step{.device_step = &record, .host_step = &record};
  std::vector<Segment> gradients;  // whose norm is clipped to max_norm
  for (const Param* p : params) gradients.push_back({p->offset, p->offset + p->size()});

  // Pixels are normalised by the training set's mean and standard deviation of each channel.
  const ChannelStats stats = channel_stats(*data, task.train, format);
  VitContext context{.step = &record,
                     .mean = Tensor::from(stats.mean, {3}, DType::f32, kCpu),
                     .stddev = Tensor::from(stats.stddev, {3}, DType::f32, kCpu)};

  for (int epoch = 1; epoch <= epochs; ++epoch) {
    double loss_sum = 0.0, right = 0.0;
    context.training = true;
    while (const Batch* batch = train.next()) {
      context.crop = Tensor::from(std::span<const std::int32_t>(batch->crop), {batch->count, 3}, kCpu);
      record.first_sample = std::int64_t(batch->first_sample);
      optimizer->prepare(step);  // writes the learning rate

      Tape tape;                                  // forward: every operation is noted on the tape
      const Watched watched(tape, model, false);  // ... because the weights are leaves of it
      const Tensor loss = cross_entropy(forward(model, images_of(*batch), context), labels_of(*batch), {}, {});
      loss_sum += loss.to_host()[0] * double(batch->count);
      backward(tape, loss);  // the tape in reverse; gradients arrive in the arena

      EVERGRAD_CALL(kCpu, global_norm, GlobalNorm{.grad = arena.grad.view(), .segments = gradients, .step = &record});
      optimizer->step(step);
      ++record.step;
    }
    Loader test(data, task.test, task.transform, {.format = format, .batch = 256, .epochs = 1, .shuffle = false});
    context.training = false, context.crop = {};
    while (const Batch* batch = test.next()) {
      Tensor correct;  // i32 [B]; without a tape nothing is kept for a backward pass
      cross_entropy(forward(model, images_of(*batch), context), labels_of(*batch), {}, {}, 0.0, 0.0, &correct);
      for (const double c : correct.to_host()) right += c;
    }
    std::printf("epoch %d/%d: train loss %.3f, test accuracy %.1f%%\n", epoch, epochs,
                loss_sum / double(task.train.size()), 100.0 * right / double(task.test.size()));
    std::fflush(stdout);
  }
  return 0;
}

int main(int argc, char** argv) {
  try {
    std::map<std::string, std::string> flags{{"--data", ""}, {"--epochs", "4"}};
    for (int i = 1; i < argc; i += 2) {
      check(i + 1 < argc && flags.contains(argv[i]), Kind::usage,
            [&] { return cat(argv[i], ": use --data DIR, --epochs N"); });
      flags[argv[i]] = argv[i + 1];
    }
    return run(flags["--data"], std::stoi(flags["--epochs"]));
  } catch (const std::exception& e) {  // an eg::Error says what failed, where, and what to do
    std::fprintf(stderr, "train_vit: %s\n", e.what());
    return 1;
  }
}
