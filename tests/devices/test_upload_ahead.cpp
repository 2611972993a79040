// tests/devices/test_upload_ahead.cpp - the next batch goes to the device beside the step that runs there, and changes nothing:
// the bits are those of a run that copies each batch when its step begins, whichever stream the device prefers (lazy seeds 1
// and 2 hold the other streams back, or let them run ahead).
#include "tests/apps/tiny_trainer.h"
#include "tests/devices/devices.h"
#if defined(EVERGRAD_HAVE_EMULATED)
#include "cuda/emulated/streams.h"
#endif

namespace eg::test {
namespace {

/// 32 images, the last batch of three is partial; cropped, or mixed with soft labels.
Loader loader_of(const Images& images, bool soft) {
  LoaderConfig c;
  c.format = {3, 8};
  c.batch = 12, c.epochs = 2, c.workers = 1, c.prefetch = 2;
  c.augment = parse_augment("crop-flip", 8);
  if (soft) c.augment.mixup = 0.4, c.soft_classes = kClasses;
  return Loader(images.data, images.task.train, images.task.transform, c);
}

struct Trained {
  std::vector<std::string> bytes;
  std::int64_t ahead = 0;
};
Trained trained(const TrainerConfig& config, bool soft, bool early) {
  const Images images;
  Trainer trainer(config);
  Loader loader = loader_of(images, soft);
  for (int epoch = 0; epoch < 2; ++epoch)
    while (const Batch* batch = loader.next()) {
      const bool last = epoch == 1 && batch->index == 2;
      const Batch* const next = early && !last ? ahead_of(loader) : nullptr;
      CHECK((next != nullptr) == (early && !last));
      trainer.step(*batch, 1.0, {}, early ? NextBatch([&] { return next; }) : NextBatch{});
    }
  return {bytes_of(trainer), trainer.uploaded_ahead()};
}

}  // namespace

TEST_CASE("upload ahead: the same bits, and every batch but the first is there when its step begins") {
  for (const Device device : devices_under_test()) {
    if (device.is_host()) continue;
    for (const bool record : {true, false})
      for (const bool soft : {false, true})
        for (const std::uint64_t order : {0, 1, 2, 3}) {  // of the streams; 0: as they were given
          CAPTURE(cat(device, record ? " recorded" : " plain", soft ? " soft" : "", " order ", order));
          TrainerConfig config = tiny("adamw", device);
          config.record_steps = record;
#if defined(EVERGRAD_HAVE_EMULATED)
          const emulated::Settings before = emulated::settings();
          emulated::settings().lazy = order > 0, emulated::settings().stream_seed = order;
#endif
          const Trained plain = trained(config, soft, false), early = trained(config, soft, true);
#if defined(EVERGRAD_HAVE_EMULATED)
          emulated::settings() = before;
#endif
          CHECK(plain.ahead == 0);
          CHECK(early.ahead == 5);
          CHECK(early.bytes == plain.bytes);
        }
  }
}

TEST_CASE("upload ahead: a batch that is not the one announced, or was filled anew, is copied as ever") {
  for (const Device device : devices_under_test()) {
    if (device.is_host()) continue;
    const Images images;
    const TrainerConfig config = tiny("sgd", device);
    const auto run = [&](bool announce) {
      Trainer trainer(config);
      Loader loader = loader_of(images, false), other = loader_of(images, false);
      const Batch* const batch = loader.next();
      const Batch* const never = ahead_of(loader);
      REQUIRE(never);
      trainer.step(*batch, 1.0, {}, [&] { return announce ? never : nullptr; });
      other.next();
      trainer.step(*other.next(), 1.0);  // of the same place in the epoch as the one announced
      CHECK(trainer.uploaded_ahead() == 0);
      return bytes_of(trainer);
    };
    CHECK(run(true) == run(false));
  }
}

}  // namespace eg::test
