// apps/commands/weights.cpp - `evergrad import` and `evergrad export`: flags and help.
#include <iostream>
#include <memory>

#include "apps/command.h"
#include "apps/run/run_folder.h"
#include "apps/weights/check_case.h"
#include "apps/weights/init_flags.h"

namespace eg {
namespace {

/// The largest error at which --check says yes: fp32 rounding through a deep network stays well below it.
constexpr double kAgreement = 1e-5;

struct ImportCommand {
  std::string file, out, check;
  ImportOptions options;
  int image_size = 0, patch = 0, channels = 0;
};

void print(const ModelWeights& w, const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::cout << "  " << note << '\n';
  std::cout << w.config.describe() << '\n';
}

int run_import(const ImportCommand& o) {
  check(!o.out.empty() || !o.check.empty(), Kind::usage,
        [] { return std::string("give -o FILE for the result, or --check CASE, or both"); });
  check_no_file_of_a_run(o.out);
  std::vector<std::string> notes;
  ModelWeights w = read_weights(o.file, o.options, &notes);
  VitConfig target = w.config;
  if (o.patch > 0) {
    target.patch = o.patch;
    if (o.image_size == 0) target.image_size = w.config.image_size / w.config.patch * o.patch;  // the same grid
  }
  if (o.image_size > 0) target.image_size = o.image_size;
  if (o.channels > 0) target.channels = o.channels;
  VitConfig whole = target;
  whole.classes = std::max(1, whole.classes);
  check_config(whole);
  w = fitted(std::move(w), target, &notes);
  if (!o.out.empty()) write_weights(o.out, w);
  std::cout << o.file << (o.out.empty() ? "" : " -> " + o.out) << '\n';
  print(w, notes);
  if (o.check.empty()) return 0;
  const CaseErrors e = check_case(w, o.check);
  std::cout << "logits: relative error " << e.logits << '\n';
  if (e.gradients > 0)
    std::cout << "gradients: largest error " << e.gradient << " of a layer's norm (" << e.worst << "), " << e.gradients
              << " tensors\n";
  const bool agree = e.logits < kAgreement && e.gradient < kAgreement;
  if (!agree)
    std::cerr << "evergrad: the errors are not below " << kAgreement << ": --heads, --eps or --gelu is wrong?\n";
  return agree ? 0 : 1;
}

struct ExportCommand {
  std::string from, out, names = "timm";
  ImportOptions options;
};

int run_export(const ExportCommand& o) {
  check_no_file_of_a_run(o.out);
  std::vector<std::string> notes;
  const ModelWeights w = read_weights(o.from, o.options, &notes);
  const bool hugging_face = o.names == "hf";
  hugging_face ? write_hugging_face(o.out, w) : write_weights(o.out, w);
  std::cout << w.source << " -> " << o.out << '\n';
  print(w, notes);
  std::cout << "In Python: safetensors.torch.load_model(model, '" << o.out
            << "') with\n  model = " << (hugging_face ? hugging_face_expression(w.config) : timm_expression(w.config))
            << '\n';
  return 0;
}

}  // namespace

void add_import_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<ImportCommand>();
  auto* sub = app.add_subcommand("import", "Bring weights in: from timm or Hugging Face");
  sub->description(
      "Reads a Vision Transformer that timm (VisionTransformer, DeiT) or Hugging Face (ViTForImageClassification) "
      "saved\n"
      "as safetensors, and writes it with timm's names and everything that evergrad must know. Sizes are read off the\n"
      "tensors. Start a run from the result, or from the file itself, with --init. Example:\n\n"
      "  evergrad import vit_tiny.safetensors -o weights.safetensors --image-size 32 --patch-size 4\n"
      "  evergrad train --init weights.safetensors --freeze 'blocks.*' --stream cifar100 --data DIR\n\n"
      "Tensors that are missing, unknown or of a wrong shape are named, and nothing is written.");
  sub->add_option("FILE", o->file, "A safetensors file, or a run folder of evergrad")->required();
  sub->add_option("-o,--out", o->out, "The file to write");
  add_import_options(*sub, o->options);
  sub->add_option("--image-size", o->image_size,
                  "Resample the position embeddings to images of this side (bicubic, antialiased, as timm does)")
      ->check(CLI::Range(1, 4096));
  sub->add_option("--patch-size,--patch", o->patch,
                  "Resize the patch kernels to this side, as FlexiViT does (arXiv:2212.08013)")
      ->check(CLI::Range(1, 1024));
  sub->add_option("--channels", o->channels, "1: sum the kernels of the input channels into one, for grey images")
      ->check(CLI::IsMember({1, 3}));
  sub->add_option(
      "--check", o->check,
      "A safetensors file with images, logits, labels and gradient/NAME that the other library computed: prints "
      "how far ours are from them");
  sub->callback([o, &run] { run = [o] { return run_import(*o); }; });
}

void add_export_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<ExportCommand>();
  auto* sub = app.add_subcommand("export", "Take weights out: for timm or Hugging Face");
  sub->description(
      "Writes the weights of a run (their moving average, where there is one) or of an imported file as safetensors "
      "with\n"
      "the names of timm's VisionTransformer or Hugging Face's ViTForImageClassification, and prints the Python\n"
      "expression for the network that reads them. Example:\n\n"
      "  evergrad export runs/cifar100 -o vit.safetensors --names timm");
  sub->add_option("CHECKPOINT", o->from, "A run folder, a checkpoint, or a file of weights")->required();
  sub->add_option("-o,--out", o->out, "The file to write")->required();
  sub->add_option("--names", o->names, "timm or hf")->capture_default_str()->check(CLI::IsMember({"timm", "hf"}));
  add_import_options(*sub, o->options);
  sub->callback([o, &run] { run = [o] { return run_export(*o); }; });
}

}  // namespace eg
