// tests/apps/test_cli_weights.cpp - `evergrad import` and `export`, and what --init and --freeze do to a run.
#include "apps/run/config.h"
#include "apps/weights/model_weights.h"
#include "engine/safetensors.h"
#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {

const std::string kCases = std::string(EVERGRAD_TEST_FILES) + "/cases/";
const Args kDrop = {"--drop", "images,labels,logits*,gradient/*"};

/// The golden model of timm, imported: 16 pixels, width 32, 3 registers.
fs::path imported(const TemporaryFolder& folder, const std::string& name = "timm_registers", const Args& more = {}) {
  const fs::path out = folder / (name + ".safetensors");
  const Ended e =
      evergrad(Args{"import", kCases + name + ".safetensors", "-o", out.string(), "--heads", "2"} + kDrop + more);
  INFO(e.all());
  REQUIRE(e.code == 0);
  return out;
}

Args stream(const fs::path& out, const fs::path& init) {
  return {"continual",  "--tasks",       "2",  "--classes-per-task",
          "2",          "--epochs",      "1",  "--batch",
          "8",          "--train-limit", "16", "--seeds",
          "1",          "--test-limit",  "10", "--out",
          out.string(), "--threads",     "1",  "--init",
          init.string()};
}

std::map<std::string, std::vector<double>> exported(const fs::path& run, const fs::path& to) {
  const Ended e = evergrad({"export", run.string(), "-o", to.string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  const SafetensorsFile file = SafetensorsFile::open(to);
  std::map<std::string, std::vector<double>> all;
  for (const SafetensorsEntry& t : file.entries()) all[t.name] = file.load(t, kCpu).to_host();
  return all;
}

}  // namespace

TEST_CASE("import and export: say what they did, check it against the other library, and convert between names") {
  const TemporaryFolder folder;
  for (const std::string name : {"timm_registers", "timm_qk_norm_mean", "hugging_face_vit"}) {
    const std::string file = kCases + name + ".safetensors";
    const Args heads = name == "timm_qk_norm_mean" ? Args{} : Args{"--heads", "2"};
    const Ended e =
        evergrad(Args{"import", file, "-o", (folder / "w.safetensors").string(), "--check", file} + kDrop + heads);
    INFO(e.all());
    CHECK(e.code == 0);
    for (const char* part : {"logits: relative error", "gradients: largest error", "left out, as asked", "10 classes"})
      CHECK(contains(e.out, part));
  }
  const std::string own = (folder / "w.safetensors").string(), out = (folder / "t.safetensors").string();
  const Ended timm = evergrad({"export", own, "-o", out});
  CHECK(contains(timm.out, "VisionTransformer(img_size=16, patch_size=4"));
  const Ended hf = evergrad({"export", out, "-o", (folder / "h.safetensors").string(), "--names", "hf"});
  INFO(hf.all());
  CHECK(hf.code == 0);
  CHECK(contains(hf.out, "ViTConfig(image_size=16"));
  check_refused(evergrad(Args{"import", kCases + "hugging_face_vit.safetensors", "--heads", "4", "--check",
                              kCases + "hugging_face_vit.safetensors"} +
                         kDrop),
                1, {"not below", "--heads"});
  check_refused(
      evergrad({"import", kCases + "timm_registers.safetensors", "-o", out, "--heads", "2", "--drop", "images,labels"}),
      1, {"unknown: ", "gradient/blocks.0.attn.proj.bias", "--drop"});
  check_refused(evergrad({"import", (folder / "none.safetensors").string(), "-o", out}), 1, {"none.safetensors"});
  check_refused(evergrad({"import", own}), 2, {"-o FILE"});
  check_refused(evergrad({"export", own, "-o", out, "--names", "jax"}), 2, {"--names"});
}

TEST_CASE("import: other sizes are written, and what starts from them needs no flag of the model") {
  const TemporaryFolder folder;
  const fs::path w = imported(folder, "timm_registers", {"--image-size", "16", "--patch-size", "8", "--channels", "1"});
  const SafetensorsFile file = SafetensorsFile::open(w);
  CHECK(file.find("patch_embed.proj.weight")->shape == Shape{32, 1, 8, 8});
  CHECK(file.find("pos_embed")->shape == Shape{1, 4, 32});
  const Ended e =
      evergrad({"train", "--init", w.string(), "--classes", "3", "--epochs", "1", "--batch", "8", "--train-limit", "16",
                "--test-limit", "6", "--threads", "1", "--out", (folder / "run").string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  const Config c = Config::read(folder / "run" / "config.toml");
  CHECK((c.whole("dim") == 32 && c.whole("depth") == 2 && c.whole("heads") == 2 && c.whole("registers") == 3));
  CHECK((c.whole("patch") == 8 && c.whole("channels") == 1 && c.whole("image-size") == 16));
  CHECK(contains(e.err, "head of 10 classes left out"));
}

TEST_CASE("init: a run starts from the weights, at another size where it is asked for, and goes on after a kill") {
  const TemporaryFolder folder;
  const fs::path w = imported(folder);
  const auto start = exported(w, folder / "start.safetensors");
  // Rate 0: the weights stay, so that what is exported is what the run began with.
  const Args still = {"--methods", "sgd", "--lr", "0", "--head", "keep", "--classes-per-task", "10", "--tasks", "1"};
  const Ended e = evergrad(stream(folder / "still", w) + still);
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(exported(folder / "still", folder / "still.safetensors") == start);
  const Ended large =
      evergrad(stream(folder / "large", w) + Args{"--methods", "sgd", "--lr", "0", "--image-size", "24"});
  INFO(large.all());
  REQUIRE(large.code == 0);
  CHECK(contains(large.err, "positions resampled from 4 x 4 to 6 x 6"));
  const auto resized = exported(folder / "large", folder / "large.safetensors");
  CHECK(resized.at("pos_embed").size() == 36 * 32);
  CHECK(resized.at("blocks.0.attn.qkv.weight") == start.at("blocks.0.attn.qkv.weight"));
  CHECK(resized.at("head.weight").size() == 2 * 32);
  // A run's folder is a start as well, and a resumed run is the same command.
  const Args next = stream(folder / "next", folder / "still") + Args{"--methods", "adamw,l2init,fresh"};
  const Ended first = evergrad(next);
  INFO(first.all());
  REQUIRE(first.code == 0);
  CHECK(evergrad(next + Args{"--resume"}).code == 0);
  CHECK(evergrad({"eval", "--checkpoint", (folder / "next").string()}).code == 0);
  check_refused(evergrad(stream(folder / "x", w) + Args{"--dim", "64"}), 2, {"--dim 64", "--init", "32"});
  check_refused(evergrad(stream(folder / "x", w) + Args{"--pos", "sincos"}), 2, {"--pos", "learned"});
  check_refused(evergrad(stream(folder / "x", w) + Args{"--methods", "crelu"}), 2, {"--init", "crelu"});
  check_refused(evergrad(stream(folder / "x", folder / "none.safetensors")), 1, {"none.safetensors"});
}

TEST_CASE("freeze: under every method the frozen tensors keep their bits through a run, and the others are trained") {
  const TemporaryFolder folder;
  const fs::path w = imported(folder);
  const auto start = exported(w, folder / "start.safetensors");
  const Args frozen = {"--freeze", "blocks.0.*,patch_embed.*", "--freeze", "*_token,pos_embed"};
  for (const std::string method : {"adamw", "sgd+l2init+nap", "arrow:window=2", "cbp:rate=0.5:maturity=1",
                                   "shrink-perturb", "muon", "fresh", "fire", "dash", "sgd+sam"}) {
    CAPTURE(method);
    fs::remove_all(folder / "run");
    const Ended e = evergrad(stream(folder / "run", w) + Args{"--methods", method, "--probe", "none"} + frozen);
    INFO(e.all());
    REQUIRE(e.code == 0);
    const auto end = exported(folder / "run", folder / "end.safetensors");
    for (const auto& [name, values] : end) {
      const std::string shown = name;
      CAPTURE(shown);
      const bool still = contains(name, "blocks.0.") || contains(name, "patch_embed") || contains(name, "_token") ||
                         name == "pos_embed";
      if (still) CHECK(values == start.at(name));
      if (name == "blocks.1.mlp.fc1.weight" || name == "blocks.1.attn.proj.weight") CHECK(values != start.at(name));
    }
  }
  check_refused(evergrad(stream(folder / "x", w) + Args{"--freeze", "block.*"}), 2,
                {"--freeze block.* fits no parameter", "blocks.*.attn.qkv.weight", "head.weight"});
  check_refused(evergrad(stream(folder / "x", w) + Args{"--freeze", "*"}), 2,
                {"--freeze * freezes the head", "--head"});
  check_refused(evergrad(stream(folder / "x", w) + Args{"--freeze", "*", "--head", "keep"}), 2, {"nothing to train"});
}

TEST_CASE("eval: tests an imported file on the classes that its head knows, and refuses to guess") {
  const TemporaryFolder folder;
  const fs::path w = imported(folder);
  const Args data = {"--test-limit", "20", "--train-limit", "20", "--threads", "1"};
  const Ended e = evergrad(Args{"eval", "--checkpoint", w.string(), "--classes", "10"} + data);
  INFO(e.all());
  CHECK(e.code == 0);
  CHECK(contains(e.out, "test accuracy"));
  check_refused(evergrad(Args{"eval", "--checkpoint", w.string(), "--classes", "4"} + data), 2,
                {"no head for 4 classes"});
}

TEST_CASE(
    "export, import, predict: what contradicts the file, or would overwrite a run, is refused and nothing changes") {
  const TemporaryFolder folder;
  const fs::path init = imported(folder);
  const auto refused = [&](const Args& args, const char* part) {
    const Ended e = evergrad(args);
    INFO(e.all());
    CHECK(e.code == 2);
    CHECK(contains(e.err, part));
  };
  const std::string out = (folder / "again.safetensors").string();
  refused({"import", init.string(), "-o", out, "--heads", "4"}, "--heads 4 does not go with");
  refused({"import", init.string(), "-o", out, "--gelu", "tanh"}, "--gelu tanh does not go with");
  refused(stream(folder / "run", init) + Args{"--norm-eps", "1e-3"}, "which says 1e-06");
  CHECK_FALSE(fs::exists(out));
  CHECK_FALSE(fs::exists(folder / "run"));

  const fs::path run = folder / "run";
  REQUIRE(evergrad(stream(run, init)).code == 0);
  CHECK(fs::path(Config::read(run / "config.toml").text("init")).is_absolute());
  refused({"export", run.string(), "-o", out, "--heads", "4"}, "--heads 4 does not go with");
  refused({"export", run.string(), "-o", out, "--drop", "head.*"}, "--drop head.* is for files");
  const std::string config = read_file(run / "config.toml");
  refused({"export", run.string(), "-o", (run / "config.toml").string()}, "belongs to the run in");
  refused({"predict", "--checkpoint", run.string(), "--test-images", "1", "--json", (run / "metrics.jsonl").string()},
          "belongs to the run in");
  for (const auto& file : fs::directory_iterator(run / "checkpoints"))
    refused({"export", run.string(), "-o", file.path().string()}, "belongs to the run in");
  CHECK(read_file(run / "config.toml") == config);
  const Ended whose = evergrad({"export", run.string(), "-o", out});
  CHECK(contains(whose.out, "trained with "));
  CHECK(contains(whose.out, ", seed 1; other checkpoints"));

  // Other weights under the same name would make another run.
  const fs::path other = imported(folder, "timm_registers", {"--image-size", "16"});
  REQUIRE(evergrad({"export", run.string(), "-o", other.string()}).code == 0);
  refused(stream(run, init) + Args{"--resume"}, "init-checksum was");
  fs::remove(init);
  const Ended gone = evergrad(stream(run, init) + Args{"--resume"});
  CHECK(gone.code == 1);
  CHECK(contains(gone.err, "the weights that the run starts from, --init "));
  CHECK(evergrad({"predict", "--checkpoint", run.string(), "--test-images", "1"}).code == 0);
  refused({"predict", "--checkpoint", out, "--test-images", "1"}, "evergrad train --init");
  CHECK_FALSE(contains(evergrad({"explain", "--help"}).out, "--init"));
}

TEST_CASE("export: a network too narrow for its checkpoint to tell the classes is refused, not written with fewer") {
  const TemporaryFolder folder;
  const std::string run = (folder / "run").string(), out = (folder / "w.safetensors").string();
  REQUIRE(evergrad({"train", "--stream",     "procedural", "--classes", "4", "--image-size", "8", "--patch",
                    "4",     "--dim",        "12",         "--depth",   "1", "--heads",      "3", "--train-limit",
                    "16",    "--test-limit", "8",          "--batch",   "8", "--epochs",     "1", "--threads",
                    "1",     "--out",        run})
              .code == 0);
  check_refused(evergrad({"export", run, "-o", out}), 2, {"does not tell 3 classes from 4"});
  CHECK_FALSE(fs::exists(out));
}
