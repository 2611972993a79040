// apps/commands/data.cpp - `evergrad data list|fetch|verify|preview`: look at data before training on it.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/command.h"
#include "data/fetch.h"
#include "data/hash.h"
#include "data/preview.h"
#include "data/stream.h"
#include "engine/error.h"

namespace eg {
namespace {

struct DataArgs {
  std::string name, dir = "data-sets", url, kind = "procedural", data, out = "preview.png", protocol = "class-subset";
  std::string corrupt = "fail";
  int image_size = 32, channels = 3, columns = 10, rows = 12, classes_per_task = 10;
  std::int64_t task = 0, tasks = 0;
  std::uint64_t seed = 1;
};

std::string lines_of(const RemoteSet& set) {
  std::string text;
  for (const RemoteFile& f : set.files) text += cat("      ", f.url, "\n");
  return text;
}

int list() {
  std::cout << "Built in (--stream procedural): unlimited image classes drawn from a seed; no file, no download\n\n"
               "Can be fetched (evergrad data fetch NAME --dir DIR)\n";
  for (const RemoteSet& set : remote_sets()) {
    std::printf("  %-14s %s\n%s", set.name.c_str(), set.what.c_str(), lines_of(set).c_str());
    std::printf("      then: --stream %s --data DIR\n", set.kind.c_str());
  }
  std::cout
      << "\nRead from --data DIR\n"
         "  cifar10, cifar100   the official binary files\n"
         "  idx                 MNIST-style IDX files, plain or .gz (without --data: Debian's dataset-fashion-mnist)\n"
         "  folder              one folder per class with JPEG, PNG or BMP images of any size\n";
  if (!can_fetch()) std::cout << "\nThis build lacks libcurl: `data fetch` is absent, download by hand.\n";
  return 0;
}

/// One line per file that rewrites itself on a terminal; elsewhere a line per tenth.
Progress progress_line() {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  auto last = std::make_shared<std::pair<std::string, std::int64_t>>();
  return [=](const std::string& file, std::int64_t done, std::int64_t total) {
    const std::int64_t part = total > 0 ? done * (terminal ? 100 : 10) / total : done >> 20;
    if (*last == std::pair(file, part) || done == 0) return;
    *last = {file, part};
    std::fprintf(stderr, "%s%s: %.1f of %.1f MB%s", terminal ? "\r" : "", file.c_str(), double(done) / 1e6,
                 double(total) / 1e6, terminal && done != total ? "" : "\n");
  };
}

int fetch(const DataArgs& a) {
  const RemoteSet& set = remote_set(a.name);
  std::printf("fetching %s into %s\n", set.name.c_str(), a.dir.c_str());
  std::fflush(stdout);
  fetch_set(set, a.dir, a.url, progress_line());
  std::printf("done: every file has its published sum. Use it with: --stream %s --data %s\n", set.kind.c_str(),
              a.dir.c_str());
  return 0;
}

int verify(const DataArgs& a) {
  const RemoteSet& set = remote_set(a.name);
  int wrong = 0;
  for (const RemoteFile& file : set.files) {
    const std::filesystem::path path = std::filesystem::path(a.dir) / file.file_name();
    const bool there = std::filesystem::exists(path);
    const std::string sum = there ? file_sum(path, file.sum) : "";
    const bool right = sum == file.sum;
    wrong += !right;
    std::printf("%-8s %s%s\n",
                right   ? "ok"
                : there ? "WRONG"
                        : "missing",
                path.c_str(), right || !there ? "" : cat(" (sum ", sum, ", published ", file.sum, ")").c_str());
  }
  if (!wrong) return 0;
  std::printf("get what is wrong or missing with: evergrad data fetch %s --dir %s\n", a.name.c_str(), a.dir.c_str());
  return 1;
}

int preview(const DataArgs& a) {
  DatasetOptions options;
  options.procedural.seed = a.seed;
  check(a.corrupt == "fail" || a.corrupt == "skip", Kind::usage,
        [&] { return cat("--corrupt ", a.corrupt, ": there are fail and skip"); });
  if (a.corrupt == "skip") options.on_corrupt = OnCorrupt::skip;
  const auto data = open_dataset(a.kind, a.data, options);
  for (const std::string& warning : data->warnings()) std::fprintf(stderr, "%s\n", warning.c_str());
  StreamConfig config;
  config.protocol = parse_protocol(a.protocol);
  config.classes_per_task = std::min(a.classes_per_task, data->classes());
  config.tasks = std::max<std::int64_t>(a.tasks, a.task + 1);
  config.seed = a.seed;
  if (config.tasks < std::int64_t(data->parts().size())) config.order = ClassOrder::mixed;  // one sheet shows them all
  const auto stream = make_stream(data, config);
  const Task task = stream->task(a.task);
  contact_sheet(*data, task, {a.channels, a.image_size}, a.columns, a.rows).write_png(a.out);
  std::printf("%s\n%s: %lld training and %lld test images\nwrote %s\n", stream->describe().c_str(), task.name.c_str(),
              static_cast<long long>(task.train.size()), static_cast<long long>(task.test.size()), a.out.c_str());
  return 0;
}

void add_fetch_and_verify(CLI::App& sub, std::function<int()>& run, const std::shared_ptr<DataArgs>& a) {
  auto* get = sub.add_subcommand("fetch",
                                 "Download a data set, continue an interrupted download, check its sum, unpack\n"
                                 "Example: evergrad data fetch cifar100 --dir data-sets");
  get->add_option("name", a->name, "What to fetch; `evergrad data list` shows the names")->required();
  get->add_option("--dir", a->dir, "Folder to put it in")->capture_default_str();
  get->add_option("--url", a->url, "Fetch the same files from this address (a mirror)");
  get->callback([&run, a] { run = [a] { return fetch(*a); }; });
  auto* sums = sub.add_subcommand("verify",
                                  "Compare downloaded files with their published sums; exit code 1 if one differs\n"
                                  "Example: evergrad data verify cifar100 --dir data-sets");
  sums->add_option("name", a->name, "What to verify; `evergrad data list` shows the names")->required();
  sums->add_option("--dir", a->dir, "Folder that holds the downloaded files")->capture_default_str();
  sums->callback([&run, a] { run = [a] { return verify(*a); }; });
}

}  // namespace

void add_data_command(CLI::App& app, std::function<int()>& run) {
  const auto a = std::make_shared<DataArgs>();
  auto* sub = app.add_subcommand("data",
                                 "List, fetch, verify and preview data sets\n"
                                 "Example: evergrad data preview --stream procedural --out sheet.png");
  sub->require_subcommand(1);
  sub->add_subcommand("list", "Which data sets there are and where they come from")->callback([&run] { run = list; });
  add_fetch_and_verify(*sub, run, a);
  auto* see = sub->add_subcommand(
      "preview",
      "Write a contact sheet: one row per class of one task, as the network would see it\n"
      "Example: evergrad data preview --stream folder --data images_background --image-size 64 --out sheet.png\n"
      "Example: evergrad data preview --protocol input-permutation --task 3");
  see->add_option("--stream", a->kind, "procedural, cifar10, cifar100, idx, folder or sequence:PART+PART")
      ->capture_default_str();
  see->add_option("--data", a->data, "Folder of the data set");
  see->add_option("--protocol", a->protocol,
                  "How the stream makes tasks (class-subset, input-permutation, domain, ...)")
      ->capture_default_str();
  see->add_option("--task", a->task, "Which task to show")
      ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 30))
      ->capture_default_str();
  see->add_option("--tasks", a->tasks, "Tasks of the stream (domain shifts are spread over them)")
      ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 30));
  see->add_option("--classes-per-task", a->classes_per_task, "Classes of a task")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  see->add_option("--image-size", a->image_size, "Side of the images in pixels")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  see->add_option("--channels", a->channels, "1 (grey) or 3 (RGB)")
      ->check(CLI::IsMember({1, 3}))
      ->capture_default_str();
  see->add_option("--columns", a->columns, "Images per class")->check(CLI::Range(1, 200))->capture_default_str();
  see->add_option("--rows", a->rows, "Classes at most")->check(CLI::Range(1, 200))->capture_default_str();
  see->add_option("--seed", a->seed, "Seed of the stream and of procedural images")->capture_default_str();
  see->add_option("--corrupt", a->corrupt, "What a corrupt image file does: fail or skip")->capture_default_str();
  see->add_option("--out", a->out, "PNG file to write")->capture_default_str();
  see->callback([&run, a] { run = [a] { return preview(*a); }; });
}

}  // namespace eg
