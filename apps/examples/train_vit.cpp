// apps/examples/train_vit.cpp - a Vision Transformer from data to accuracy.
//
//   build/train_vit          ten classes of made-up images, 4 epochs: a few seconds
//   build/train_vit 10 DIR   CIFAR-100, 10 epochs: the folder with train.bin and test.bin
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <evergrad/autograd/functions.h>
#include <evergrad/data/batch_tensors.h>
#include <evergrad/data/computed.h>
#include <evergrad/engine/rng.h>
#include <evergrad/layers/vit.h>
#include <evergrad/optim/host_training.h>

using namespace eg;

/// Data of one's own, here gratings in noise, whose class is the direction of their stripes. Every random number has a
/// key and an index, so that image i is a function of i. (Data that lies somewhere is a class: data/dataset.h.)
void grating(Split split, std::int64_t i, int label, ImageFormat f, std::uint8_t* out) {
  const Key draw = key(/*seed=*/1, "gratings", to_string(split), std::uint32_t(i));
  const double angle = label * M_PI / 10, phase = 2 * M_PI * draw.uniform(0);
  for (std::int64_t at = 0; at < f.bytes(); ++at) {
    const double x = double(at % f.size), y = double(at / f.size % f.size);
    const double stripes = std::sin(phase + M_PI / 3 * (std::cos(angle) * x + std::sin(angle) * y));
    out[at] = std::uint8_t(128 + 50 * stripes + 70 * (draw.uniform(std::uint64_t(1 + at)) - 0.5));
  }
}

int main(int argc, char** argv) try {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 4;
  check(epochs > 0 && argc <= 3, Kind::usage, [] { return "use: train_vit [EPOCHS [FOLDER OF CIFAR-100]]"; });

  // Data: a set, the one task of learning it, and loaders that prepare batches in the background.
  const auto data = argc > 2 ? open_dataset("cifar100", argv[2])
                             : computed_dataset({"gratings", 10, 2000, 500, {.channels = 3, .size = 16}}, grating);
  const ImageFormat format = data->native();
  const Task task = whole_dataset(*data);
  const ChannelStats stats = channel_stats(*data, task.train, format);
  Loader train(data, task.train, task.transform, {.format = format, .augment = parse_augment("crop", format.size)});
  Loader test(data, task.test, task.transform, {.format = format, .batch = 256, .shuffle = false});

  // Model: a preset with its sizes replaced. Method: any of `evergrad continual --list-methods` that needs no loop of
  // its own; HostTraining holds the weights, and what changes from step to step in a record that kernels read.
  VitConfig config = vit_config("vit-ti", format.size, /*patch=*/4, /*dim=*/64, /*depth=*/2, /*heads=*/4);
  config.classes = int(task.head_classes);
  Vit model = make_vit(config);
  HostTraining training(parameters(model), config.depth, {.method = "adamw", .lr = 2e-3, .weight_decay = 0.05});
  VitContext context{.step = &training.record(),  // pixels are normalised by the training set's statistics
                     .mean = channel_tensor(stats.mean),
                     .stddev = channel_tensor(stats.stddev)};
  std::printf("%s\n", config.describe().c_str());

  for (int epoch = 1; epoch <= epochs; ++epoch) {
    double loss_sum = 0.0, right = 0.0;
    while (const Batch* batch = train.next()) {  // null at the end of each epoch
      const BatchTensors in = tensors_of(*batch);
      context.training = true, context.crop = in.crop;
      training.begin(batch->count, batch->first_sample);
      Tape tape;                                  // forward: every operation is noted on the tape
      const Watched watched(tape, model, false);  // ... because the weights are leaves of it
      const Tensor loss = cross_entropy(forward(model, in.images, context), in.labels, {}, {});
      backward(tape, loss);  // the tape in reverse: gradients arrive beside the weights
      training.finish();     // clips them, and updates the weights
      loss_sum += loss.to_host()[0] * double(batch->count);
    }
    context.training = false, context.crop = {};
    while (const Batch* batch = test.next()) {
      const BatchTensors in = tensors_of(*batch);
      Tensor correct;  // i32 [B]; without a tape nothing is kept for a backward pass
      cross_entropy(forward(model, in.images, context), in.labels, {}, {}, 0.0, 0.0, &correct);
      for (const double c : correct.to_host()) right += c;
    }
    std::printf("epoch %d/%d: train loss %.3f, test accuracy %.1f%%\n", epoch, epochs,
                loss_sum / double(task.train.size()), 100.0 * right / double(task.test.size()));
  }
} catch (const std::exception& e) {  // an eg::Error says what failed, where, and what to do
  return std::fprintf(stderr, "train_vit: %s\n", e.what()), 1;
}
