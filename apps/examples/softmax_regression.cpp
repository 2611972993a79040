// apps/examples/softmax_regression.cpp - the smallest complete training program: one matrix, one loss, SGD.
//
//   build/softmax_regression --stream cifar100 --data DIR --epochs 10
//
// Everything a bigger model does is here once: images from the loader, operations on a tape, gradients in one arena,
// one fused update. docs/tour.md follows the same path through a Vision Transformer.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "apps/options.h"
#include "apps/setup.h"
#include "autograd/functions.h"
#include "autograd/tape.h"
#include "data/loader.h"
#include "engine/parallel.h"

namespace eg {
namespace {

struct Options {
  DataOptions data;
  int epochs = 10, batch = 64, size = 32, channels = 3, threads = 0;
  double lr = 0.001, momentum = 0.9;
  std::uint64_t seed = 1;
};

/// Pixels [B, channels size size] times one matrix; its gradient, momentum and step record lie next to it.
struct Regression {
  Tensor weight, bias, weight_grad, bias_grad, weight_momentum, bias_momentum, mean, stddev;
  StepRecord step;

  Regression(std::int64_t inputs, std::int64_t classes, const ChannelStats& stats) {
    weight = Tensor::zeros({classes, inputs}, DType::f32, kCpu), bias = Tensor::zeros({classes}, DType::f32, kCpu);
    weight_grad = weight.clone(), bias_grad = bias.clone(), weight_momentum = weight.clone(),
    bias_momentum = bias.clone();
    mean = Tensor::from(stats.mean, {std::int64_t(stats.mean.size())}, DType::f32, kCpu);
    stddev = Tensor::from(stats.stddev, mean.shape(), DType::f32, kCpu);
  }
  Tensor logits(const Batch& b, const Tensor& w, const Tensor& v) const {
    const Tensor images =
        Tensor::from(std::span(b.images.data(), b.images.size()), {b.count, b.channels, b.size, b.size}, kCpu);
    const Tensor pixels = patchify(images, b.size, b.size, DType::f32, mean, stddev, {});  // one patch: the whole image
    return linear(pixels.reshape({b.count, pixels.cols()}), w, v);
  }
  /// One update; returns the mean loss.
  double learn(const Batch& b) {
    Tape tape;
    Tensor w = weight, v = bias;
    tape.watch(w, weight_grad.view());
    tape.watch(v, bias_grad.view());
    const Tensor loss =
        cross_entropy(logits(b, w, v), Tensor::from(std::span<const std::int32_t>(b.labels), {b.count}, kCpu), {}, {});
    const double value = loss.to_host()[0];
    backward(tape, loss);
    update(weight, weight_grad, weight_momentum);
    update(bias, bias_grad, bias_momentum);
    EVERGRAD_CALL(kCpu, step_finish, StepFinish{.step = &step});
    return value;
  }
  double momentum_factor = 0.9;

 private:
  void update(const Tensor& w, const Tensor& g, const Tensor& m) const {
    const Segment all{0, w.size()};
    const auto flat = [&](const Tensor& t) { return t.reshape({t.size()}).view(); };
    EVERGRAD_CALL(kCpu, sgd_update,
                  SgdUpdate{.weight = flat(w),
                            .grad = flat(g),
                            .momentum = flat(m),
                            .segments = {&all, 1},
                            .step = &step,
                            .mu = momentum_factor});
  }
};

double accuracy(const Regression& r, Loader& loader) {
  double correct = 0.0, count = 0.0;
  while (const Batch* b = loader.next()) {
    Tensor right;
    cross_entropy(r.logits(*b, r.weight, r.bias),
                  Tensor::from(std::span<const std::int32_t>(b->labels), {b->count}, kCpu), {}, {}, 0.0, 0.0, &right);
    for (const double x : right.to_host()) correct += x;
    count += double(b->count);
  }
  return correct / count;
}

int run(const Options& o) {
  set_num_threads(o.threads);
  const std::shared_ptr<const Dataset> data = open_data(o.data);
  const Task task = whole_dataset(*data, o.data.stream == "procedural" ? 10 : 0);
  LoaderConfig train{.format = {o.channels, o.size}, .batch = o.batch, .epochs = o.epochs, .seed = o.seed};
  LoaderConfig test{.format = {o.channels, o.size}, .batch = 256, .epochs = 1, .shuffle = false};
  Regression r(train.format.bytes(), task.head_classes, channel_stats(*data, task.train, train.format));
  r.step.slot[0].lr = o.lr, r.momentum_factor = o.momentum;
  Loader images(data, task.train, task.transform, train);
  for (int epoch = 1; epoch <= o.epochs; ++epoch) {
    double loss = 0.0;
    while (const Batch* b = images.next()) loss += r.learn(*b) * double(b->count);
    Loader held_out(data, task.test, task.transform, test);
    std::printf("epoch %d/%d: train loss %.4f, test accuracy %.2f%%\n", epoch, o.epochs,
                loss / double(task.train.size()), 100.0 * accuracy(r, held_out));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace eg

int main(int argc, char** argv) {
  CLI::App app{"Softmax regression on raw pixels: the linear baseline that a Vision Transformer must beat."};
  eg::Options o;
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--stream", o.data.stream, "procedural, cifar10, cifar100, idx or folder")->capture_default_str();
  app.add_option("--data", o.data.data, "Folder with the data set's files");
  app.add_option("--epochs", o.epochs, "Passes over the training images")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--batch", o.batch, "Images per step")->capture_default_str()->check(CLI::Range(1, 65536));
  app.add_option("--lr", o.lr, "Learning rate of SGD, the same all along")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--momentum", o.momentum, "Of SGD; 0: none")->capture_default_str()->check(CLI::Range(0.0, 0.999));
  app.add_option("--image-size", o.size, "Pixels along each side, to which images are scaled")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--channels", o.channels, "1 (grey) or 3 (RGB)")->capture_default_str()->check(CLI::IsMember({1, 3}));
  app.add_option("--seed", o.seed, "Decides the weights at the start and the order of the images")
      ->capture_default_str();
  app.add_option("--threads", o.threads, "0: all cores")->capture_default_str()->check(CLI::Range(0, 1024));
  CLI11_PARSE(app, argc, argv);
  try {
    return eg::run(o);
  } catch (const std::exception& e) {
    std::cerr << "softmax_regression: " << e.what() << '\n';
    return 1;
  }
}
