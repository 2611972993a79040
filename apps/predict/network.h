// apps/predict/network.h - a trained network that is asked about images: its checkpoint, what its outputs are called, and
// how an image becomes its input. Also where its answer comes from.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/continual/evaluate.h"
#include "apps/diagnosis/attention_flow.h"
#include "apps/diagnosis/attention_maps.h"
#include "apps/training/training.h"

namespace eg {

struct TrainedNetwork {
  std::unique_ptr<OpenedRun> run;  // exactly one of these two
  std::unique_ptr<OpenedTraining> training;
  std::string description;           // "adamw, seed 1, after task 3 of 10"
  std::vector<std::string> classes;  // what each output is called; the output's number where it has no name
  Tensor class_mask;                 // u8 [classes]: outputs that may answer, or empty
  Task task;                         // the task in hand: its test images, and what it does to every image
  ImageFormat format;

  Trainer& trainer() const { return run ? run->trainer : training->trainer; }
  const std::shared_ptr<const Dataset>& data() const { return run ? run->plan.data() : training->data; }
  /// From where the readout's attention goes: the class token, or the patches or prompts where the head reads their mean.
  Readout readout() const {
    const VitConfig& c = trainer().model().config;
    return {!c.pools_mean(), c.prefix(), c.prompt_tokens()};
  }
};

/// Opens a checkpoint of `train` or `continual` with the configuration of its run (empty `config`: the config.toml beside
/// it). `flags` ("--device=cpu") change that configuration; without --precision everything is computed in fp32. The
/// moving average answers where the run kept one. Throws Error{usage|io|format}.
TrainedNetwork open_network(const std::string& checkpoint, const std::string& config,
                            const std::vector<std::string>& flags);

/// What the network answers, by image.
struct Answers {
  std::vector<std::vector<double>> probabilities;  // [images][classes]; outputs that may not answer have 0
};
/// images: u8 [B, channels, size, size] of the network's format. Throws Error{numeric} when an answer is not finite.
Answers ask(TrainedNetwork& n, const Tensor& images);

/// Where one image's answer comes from, patch by patch.
struct Sight {
  std::vector<double> probabilities;
  std::vector<AttentionMaps> blocks;  // of every block, first block first
  std::vector<double> rollout,
      relevance;  // by patch (apps/diagnosis/attention_flow.h); relevance of the likeliest class
};
/// images: one image. Needs memory for two maps per head of every block; throws Error{usage} above 4 GiB.
Sight look(TrainedNetwork& n, const Tensor& image);

/// The likeliest outputs, likeliest first, at most `count`.
std::vector<std::size_t> likeliest(const std::vector<double>& probabilities, std::size_t count);

}  // namespace eg
