// apps/commands/predict.cpp - `evergrad predict`: what a trained network says about images, and what it looked at.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command.h"
#include "apps/diagnosis/attention_flow.h"
#include "apps/predict/network.h"
#include "apps/predict/sheet.h"
#include "apps/report/chart.h"
#include "apps/run/run_folder.h"
#include "apps/run/table.h"
#include "data/image_file.h"
#include "engine/error.h"

namespace eg {
namespace {

struct PredictOptions {
  std::string checkpoint, config, json, attention;
  std::vector<std::string> images;
  int top = 5, test_images = 0, block = -1, scale = 2;
  MachineOptions machine;
  std::string data;
};

/// An image of the command line, or a test image of the run's own data.
struct Asked {
  std::string name, error;
  std::optional<std::int32_t> label;  // the head's, of a test image
  std::vector<std::uint8_t> pixels;   // empty after an error
  std::vector<double> probabilities;
  std::optional<Sight> sight;
};

std::vector<Asked> collect(const PredictOptions& o, const TrainedNetwork& n) {
  std::vector<Asked> all;
  const PreparedTransform transform(n.task.transform, n.format);
  std::vector<std::uint8_t> scratch;
  const auto add = [&](Asked asked, std::uint64_t image_key, const auto& read) {
    asked.pixels.resize(std::size_t(n.format.bytes()));
    try {
      read(asked.pixels.data());
      transform.apply(asked.pixels.data(), image_key, scratch);
    } catch (const Error& e) {
      asked.error = e.what();
      asked.pixels.clear();
    }
    all.push_back(std::move(asked));
  };
  for (std::size_t i = 0; i < o.images.size(); ++i)
    add({.name = o.images[i]}, i, [&](std::uint8_t* out) { read_image(o.images[i], n.format, out); });
  const SampleSet test = own_test(n.task);
  check(o.test_images <= test.size(), Kind::usage,
        [&] { return cat("--test-images ", o.test_images, ": the task in hand has ", test.size(), " test images"); });
  for (int i = 0; i < o.test_images; ++i) {
    // Spread over the test set, so that a few of them are of different classes.
    const auto k = std::size_t(std::int64_t(i) * test.size() / o.test_images);
    const std::int64_t index = test.indices[k];
    add({.name = cat("test image ", index), .label = test.labels[k]},
        std::uint64_t(index) * 2 + (test.split == Split::test),
        [&](std::uint8_t* out) { n.data()->image(test.split, index, n.format, out); });
  }
  return all;
}

Tensor tensor_of(const std::vector<Asked*>& some, ImageFormat format) {
  std::vector<std::uint8_t> bytes;
  for (const Asked* a : some) bytes.insert(bytes.end(), a->pixels.begin(), a->pixels.end());
  return Tensor::from(bytes, {std::int64_t(some.size()), format.channels, format.size, format.size}, kCpu);
}

/// With maps one image at a time, since they are large; else in batches.
void answer(std::vector<Asked>& all, TrainedNetwork& n, bool with_maps) {
  const std::size_t batch = with_maps ? 1 : 32;
  std::vector<Asked*> some;
  const auto flush = [&] {
    if (some.empty()) return;
    const Tensor images = tensor_of(some, n.format);
    if (with_maps) {
      some[0]->sight = look(n, images);
      some[0]->probabilities = some[0]->sight->probabilities;
    } else {
      const Answers answers = ask(n, images);
      for (std::size_t i = 0; i < some.size(); ++i) some[i]->probabilities = answers.probabilities[i];
    }
    some.clear();
  };
  for (Asked& a : all) {
    if (a.pixels.empty()) continue;
    some.push_back(&a);
    if (some.size() == batch) flush();
  }
  flush();
}

nlohmann::json to_json(const PredictOptions& o, const TrainedNetwork& n, const std::vector<Asked>& all, int block) {
  nlohmann::json images = nlohmann::json::array();
  for (const Asked& a : all) {
    nlohmann::json image = {{"image", a.name}};
    if (!a.error.empty()) image["error"] = a.error;
    if (a.label) image["label"] = {{"class", *a.label}, {"name", n.classes[std::size_t(*a.label)]}};
    if (a.error.empty()) image["top"] = nlohmann::json::array();
    if (a.error.empty())
      for (const std::size_t k : likeliest(a.probabilities, std::size_t(o.top)))
        image["top"].push_back({{"class", k}, {"name", n.classes[k]}, {"probability", a.probabilities[k]}});
    if (a.sight) {
      const VitConfig& c = n.trainer().model().config;
      nlohmann::json heads = nlohmann::json::array();
      for (int h = 0; h < c.heads; ++h)
        heads.push_back(patch_attention(a.sight->blocks[std::size_t(block)], 0, h, n.readout()));
      image["attention"] = {
          {"block", block}, {"heads", heads}, {"rollout", a.sight->rollout}, {"relevance", a.sight->relevance}};
    }
    images.push_back(std::move(image));
  }
  return {{"checkpoint", o.checkpoint},
          {"network", n.trainer().model().config.describe()},
          {"trained_by", n.description},
          {"images", images}};
}

void print(const PredictOptions& o, const TrainedNetwork& n, const std::vector<Asked>& all) {
  std::cout << n.description << "; " << n.trainer().model().config.describe() << "\n\n";
  TextTable table({"image", "place", "class", "probability %", "the label"});
  std::int64_t right = 0, labelled = 0;
  for (const Asked& a : all) {
    if (!a.error.empty()) continue;
    const std::vector<std::size_t> top = likeliest(a.probabilities, std::size_t(o.top));
    for (std::size_t i = 0; i < top.size(); ++i)
      table.add_row({i ? "" : a.name, std::to_string(i + 1), n.classes[top[i]], fixed(100 * a.probabilities[top[i]], 2),
                     a.label && std::size_t(*a.label) == top[i] ? "<-" : ""});
    if (a.label) ++labelled, right += std::size_t(*a.label) == top[0];
  }
  if (std::any_of(all.begin(), all.end(), [](const Asked& a) { return a.error.empty(); })) std::cout << table.text();
  if (labelled) std::cout << right << " of " << labelled << " test images are right\n";
}

/// False when there is nothing to draw.
bool draw(const PredictOptions& o, const TrainedNetwork& n, const std::vector<Asked>& all, int block) {
  const VitConfig& c = n.trainer().model().config;
  Sheet sheet;
  sheet.title = "What the network looks at";
  sheet.subtitle = cat(n.description, "; ", c.describe());
  const Readout readout = n.readout();
  sheet.from = readout.prompts > 0   ? "the mean of the prompts"
               : readout.class_token ? "the class token"
                                     : "the mean of the patches";
  sheet.tokens = c.tokens();
  sheet.scale = o.scale, sheet.block = block, sheet.grid = c.image_size / c.patch, sheet.format = n.format;
  for (const Asked& a : all) {
    if (!a.sight) continue;
    SheetRow row;
    row.name = std::filesystem::path(a.name).filename().string();
    if (a.label) {
      row.name = n.classes[std::size_t(*a.label)];
      row.verdict = likeliest(a.probabilities, 1)[0] == std::size_t(*a.label) ? "✓" : "✗";
    }
    row.pixels = a.pixels;
    for (const std::size_t k : likeliest(a.probabilities, 3)) row.top.emplace_back(n.classes[k], a.probabilities[k]);
    for (int h = 0; h < c.heads; ++h)
      row.heads.push_back(patch_attention(a.sight->blocks[std::size_t(block)], 0, h, n.readout()));
    row.rollout = a.sight->rollout, row.relevance = a.sight->relevance;
    sheet.rows.push_back(std::move(row));
  }
  if (sheet.rows.empty()) {
    std::cerr << "evergrad: " << o.attention << " is not written: no image could be read\n";
    return false;
  }
  write_sheet(o.attention, sheet);
  return true;
}

int predict(const PredictOptions& o, const std::vector<std::string>& flags) {
  check(!o.images.empty() || o.test_images > 0, Kind::usage, [] {
    return std::string("no image is given; name image files, or take some of the run's own with --test-images 6");
  });
  check(o.attention.empty() || why_no_charts().empty(), Kind::usage,
        [&] { return cat("--attention: ", why_no_charts()); });
  check_no_file_of_a_run(o.attention), check_no_file_of_a_run(o.json);
  TrainedNetwork n = open_network(o.checkpoint, o.config, flags);
  const int depth = n.trainer().model().config.depth, block = o.block < 0 ? depth + o.block : o.block;
  check(block >= 0 && block < depth, Kind::usage, [&] {
    return cat("--block ", o.block, ": the network has the blocks 0 to ", depth - 1, " (-1 is the last, -", depth,
               " the first)");
  });
  std::vector<Asked> all = collect(o, n);
  answer(all, n, !o.attention.empty());
  const bool drawn = !o.attention.empty() && draw(o, n, all, block);
  if (o.json == "-") {
    std::cout << to_json(o, n, all, block).dump(2) << '\n';
  } else {
    print(o, n, all);
    if (!o.json.empty()) write_json(o.json, to_json(o, n, all, block));
    if (drawn) std::cout << "attention sheet: " << o.attention << '\n';
  }
  int failed = 0;
  for (const Asked& a : all)
    if (!a.error.empty()) std::cerr << "evergrad: " << a.error << '\n', ++failed;
  return failed ? 1 : 0;
}

}  // namespace

void add_predict_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<PredictOptions>();
  auto* sub = app.add_subcommand("predict", "What a trained network says about images, and what it looks at");
  sub->description(
      "Opens a checkpoint of evergrad train or evergrad continual and names the likeliest classes of each image: "
      "JPEG,\n"
      "PNG or BMP of any size, resized as the network's training images were. Images that cannot be read are named at\n"
      "the end, the others are answered all the same, and the exit code is 1. Computed in fp32 unless --precision "
      "says\n"
      "otherwise. With --attention FILE.png one sheet shows, for every image, where each head of one block looks\n"
      "(from the class token, or what else the head reads), attention rollout through all blocks (arXiv:2005.00928), "
      "and which patches speak for "
      "the\n"
      "likeliest class (attention times its gradient, arXiv:2103.15679). Examples:\n\n"
      "  evergrad predict --checkpoint runs/first cat.jpg dog.png --top 3\n"
      "  evergrad predict --checkpoint runs/first --test-images 6 --attention attention.png");
  sub->add_option("--checkpoint", o->checkpoint,
                  "A run folder, a checkpoints folder, or one .safetensors or .json file")
      ->required();
  sub->add_option("images", o->images, "Image files");
  sub->add_option("--test-images", o->test_images, "Also so many test images of the task in hand, with their labels")
      ->check(CLI::Range(0, 10000));
  sub->add_option("--top", o->top, "How many classes to name")->capture_default_str()->check(CLI::Range(1, 1000000));
  sub->add_option("--json", o->json,
                  "Also write everything, maps included, into this file; - : to standard output only");
  sub->add_option("--attention", o->attention, "Draw the attention sheet into this PNG file (needs cairo)");
  sub->add_option("--block", o->block, "The block whose heads are shown; negative numbers count from the last")
      ->capture_default_str();
  sub->add_option("--scale", o->scale, "Size of the sheet: 1 for small files, 2 for sharp ones, up to 4")
      ->capture_default_str()
      ->check(CLI::Range(1, 4));
  sub->add_option("--config", o->config, "The run's config.toml, when it does not lie with the checkpoint");
  sub->add_option("--data", o->data, "Folder with the data set's files, when it has moved");
  add_machine_options(*sub, o->machine);
  sub->callback([o, sub, &run] {
    run = [o, sub] {
      std::vector<std::string> flags;
      for (const char* name : {"--device", "--precision", "--threads", "--data"})
        if (sub->get_option(name)->count() > 0)
          flags.push_back(std::string(name) + "=" + sub->get_option(name)->results().back());
      return predict(*o, flags);
    };
  });
}

}  // namespace eg
