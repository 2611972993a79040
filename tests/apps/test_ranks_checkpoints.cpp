// tests/apps/test_ranks_checkpoints.cpp - checkpoints of several ranks: written in parts, read by any number, one part damaged.
#include "engine/file.h"
#include "tests/apps/ranks_training.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
using namespace eg::test;

namespace fs = std::filesystem;

namespace {

/// A start on some ranks with one folder: reads the newest checkpoint, if there is one, trains on (`rounds` times the same images),
/// saves. The state at the beginning and at the end, which is the same on all ranks.
struct Start {
  std::string begin, end;
};
Start start_in(const TemporaryFolder& folder, TrainerConfig config, int size, int zero, std::int64_t step,
               const MoreImages& images, int rounds = 1) {
  config.zero = zero;
  std::vector<Start> all(static_cast<std::size_t>(size));
  std::vector<std::string> texts(static_cast<std::size_t>(size));
  if (step == 1) Checkpoints(folder.path());
  run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
    TrainerConfig own = config;
    own.ranks = ranks;
    Trainer trainer(own);
    Checkpoints checkpoints = Checkpoints::of_another_rank(folder.path());
    if (const auto found = load_latest(checkpoints, *ranks)) {
      CHECK(found->step == step - 1);
      CHECK(found->state.at("saved") == step - 1);
      found->restore(trainer.state());
      trainer.restored();
    }
    trainer.check_ranks_agree();
    Start& s = all[std::size_t(ranks->rank())];
    s.begin = state_bytes_of(trainer);
    LoaderConfig c = images.config(true);
    share_batches(c, *ranks);
    for (int round = 0; round < rounds; ++round) {
      Loader loader(images.data, images.task.train, images.task.transform, c);
      for (int i = 0; i < 6; ++i) trainer.step(*loader.next(), 1.0);
    }
    s.end = state_bytes_of(trainer);
    save_checkpoint(checkpoints, *ranks, step, trainer.state(), [&] { return nlohmann::json{{"saved", step}}; });
    ranks->barrier();
  });
  for (const Start& s : all) {
    CHECK(s.begin == all[0].begin);
    CHECK(s.end == all[0].end);
  }
  return all[0];
}

}  // namespace

TEST_CASE("ranks: each writes its part of a checkpoint, and any number of them reads it") {
  const OneThread scope;
  const MoreImages images;
  for (const char* method : {"adamw", "sgd", "arrow:window=4:blocks=all:momentum=0.5"}) {
    TrainerConfig config = three_blocks(method, kCpu);
    config.ema = 0.9;
    const TemporaryFolder folder;
    std::string before;
    std::int64_t step = 0;
    for (const auto& [size, zero] :
         std::vector<std::pair<int, int>>{{2, 0}, {3, 1}, {4, 1}, {4, 1}, {1, 0}, {7, 1}, {2, 0}}) {
      const std::string shown = cat(method, ", step ", step + 1, ", ", size, " ranks, --zero ", zero);
      CAPTURE(shown);
      const Start s = start_in(folder, config, size, zero, ++step, images);
      if (step > 1) CHECK(s.begin == before);
      CHECK(s.end != s.begin);
      before = s.end;
      std::size_t files = 0;
      for (const auto& entry : fs::directory_iterator(folder.path()))
        files += entry.path().filename().string().starts_with(cat("step-", step, ".")) &&
                 entry.path().extension() == ".safetensors";
      CHECK(files == std::size_t(zero ? size : 1));
    }
  }
}

TEST_CASE("ranks: a divided run that was saved and read back goes on with the bits of one that was not") {
  const OneThread scope;
  const MoreImages images;
  for (const char* method : some({"arrow:window=4:blocks=all:momentum=0.5", "adamw"}))
    for (const int zero : {0, 1}) {
      const std::string shown = cat(method, ", --zero ", zero);
      CAPTURE(shown);
      const TrainerConfig config = three_blocks(method, kCpu);
      const TemporaryFolder once, twice;
      start_in(twice, config, 3, zero, 1, images);
      CHECK(start_in(twice, config, 3, zero, 2, images).end == start_in(once, config, 3, zero, 1, images, 2).end);
    }
}

TEST_CASE("ranks: one damaged part of a checkpoint costs that checkpoint, on all ranks, and is named") {
  const OneThread scope;
  const MoreImages images;
  const TrainerConfig config = three_blocks("adamw", kCpu);
  const TemporaryFolder folder;
  const Start first = start_in(folder, config, 3, 1, 1, images);
  start_in(folder, config, 3, 1, 2, images);
  const fs::path part = folder / "step-2.rank-1.safetensors";
  std::string bytes = read_file(part);
  bytes[bytes.size() - 9] = char(bytes[bytes.size() - 9] ^ 1);
  write_file(part, bytes);
  std::vector<std::string> notes;
  const auto found = Checkpoints::of_another_rank(folder.path()).load_latest(&notes);
  REQUIRE(found);
  CHECK(found->step == 1);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("step-2.rank-1.safetensors is damaged: its checksum is wrong") != std::string::npos);
  // Among ranks, of which only the one whose turn it is reads that file through.
  for (const int size : {2, 5}) {
    std::vector<std::int64_t> steps(static_cast<std::size_t>(size));
    run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
      steps[std::size_t(ranks->rank())] = load_latest(Checkpoints::of_another_rank(folder.path()), *ranks)->step;
    });
    CHECK(steps == std::vector<std::int64_t>(std::size_t(size), 1));
  }
  fs::remove(folder / "step-1.rank-2.safetensors");
  CHECK_THROWS_WITH_AS(open_checkpoint(folder / "step-1.json"), doctest::Contains("step-1.rank-2.safetensors"), Error);
}
