// apps/commands/continual.cpp - `evergrad continual`: flags and help of the main job.
#include "apps/continual/continual.h"

#include <iostream>
#include <memory>
#include <sstream>

#include "apps/command.h"
#include "apps/embedded.h"
#include "apps/plugin.h"
#include "apps/weights/init_flags.h"
#include "data/stream.h"
#include "engine/error.h"
#include "optim/optimizer.h"

namespace eg {
namespace {

int list_methods(const std::string& plugin) {
  load_plugins(plugin);
  std::cout << "Update rules (each takes lr= and weight-decay= too), and what can be added to one with a plus: "
               "sgd+l2init+nap.\n\n";
  for (const MethodInfo& m : method_list()) {
    std::cout << m.name << "  (default --lr " << m.default_lr << ")\n    " << m.summary << "\n    " << m.paper << '\n';
    if (!m.options.empty()) std::cout << "    options: " << m.options << '\n';
  }
  return 0;
}

/// "recipes/first.toml" as "first".
std::string recipe_name(const std::string& file) { return file.substr(8, file.size() - 13); }

int list_recipes() {
  for (const std::string& file : embedded_names("recipes/")) {
    std::cout << recipe_name(file) << '\n';
    std::istringstream text{std::string(embedded(file))};
    for (std::string line; std::getline(text, line) && line.rfind("# ", 0) == 0;)
      std::cout << "    " << line.substr(2) << '\n';
  }
  return 0;
}

void apply_recipe(CLI::App& sub, const std::string& name) {
  if (name.empty()) return;
  const std::string_view text = embedded("recipes/" + name + ".toml");
  check(!text.empty(), Kind::usage, [&] {
    std::string known;
    for (const std::string& file : embedded_names("recipes/"))
      known += cat(known.empty() ? "" : ", ", recipe_name(file));
    return cat("there is no recipe '", name, "'; known: ", known);
  });
  apply_config_text(sub, text, cat("recipe ", name));
}

}  // namespace

void add_continual_options(CLI::App& sub, ContinualOptions& o, std::string& config) {
  constexpr const char* group = "Stream";
  sub.add_option(
         "--protocol", o.protocol,
         "How tasks are made: class-subset (a few classes each), class-incremental (classes are added), 5+1 (K new "
         "classes, then one, in turn; averages leave out the easy tasks of one class), groups (all classes of one "
         "folder of class folders, an alphabet), "
         "label-permutation, input-permutation, random-label, noisy-label (clean step by step), domain (the images "
         "change)")
      ->capture_default_str()
      ->check(CLI::IsMember(protocol_names()))
      ->group(group);
  sub.add_option("--tasks", o.tasks, "Length of the stream")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000))
      ->group(group);
  sub.add_option("--classes-per-task", o.classes_per_task, "Classes of one task")
      ->capture_default_str()
      ->check(CLI::Range(2, 100000))
      ->group(group);
  sub.add_option("--draw", o.draw,
                 "Which classes a task gets: disjoint, deck (every class once per round), iid, or auto: disjoint "
                 "while classes last, then deck")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "disjoint", "deck", "iid"}))
      ->group(group);
  sub.add_option("--shuffle", o.shuffle,
                 "input-permutation: permute all pixels, pixels inside patches, or the order of patches")
      ->capture_default_str()
      ->check(CLI::IsMember({"pixels", "within-patch", "patch-order"}))
      ->group(group);
  sub.add_option("--domain", o.domain, "domain: rotation, hue, contrast, blur, noise or inversion")
      ->capture_default_str()
      ->check(CLI::IsMember({"rotation", "hue", "contrast", "blur", "noise", "inversion"}))
      ->group(group);
  sub.add_option(
         "--shift", o.shift,
         "domain: the images of a task have changed before it begins (abrupt), or change from those of the task "
         "before, image by image, while it is learned (gradual)")
      ->capture_default_str()
      ->check(CLI::IsMember({"abrupt", "gradual"}))
      ->group(group);
  sub.add_option("--order", o.order,
                 "Data sets of --stream sequence:...: one after another (in-turn), task by task (interleaved), or all "
                 "classes in one deck (mixed)")
      ->capture_default_str()
      ->check(CLI::IsMember({"in-turn", "interleaved", "mixed"}))
      ->group(group);
  sub.add_option("--steps", o.steps,
                 "Updates per task, however many images it has (0: as many as --epochs passes take)")
      ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))
      ->group(group);
  sub.add_option("--label-noise", o.label_noise, "noisy-label: share of wrong labels in the first task; falls to 0")
      ->capture_default_str()
      ->check(number_in(0.0, 1.0))
      ->group(group);
  sub.add_option("--train-on", o.train_on, "class-incremental: train on the new classes, or on all seen so far")
      ->capture_default_str()
      ->check(CLI::IsMember({"new", "seen"}))
      ->group(group);
  sub.add_option("--then", o.then,
                 "After the last task, go on with another protocol for as many tasks (a concatenation)")
      ->check(CLI::IsMember(protocol_names()))
      ->group(group);
  sub.add_option("--head", o.head,
                 "At a new task the head is drawn anew (fresh), zeroed (zero) or kept (keep); every task has its own "
                 "(multi); or one head for all classes is restricted to those of the task (masked) or those seen so "
                 "far (growing). auto: growing for class-incremental, keep for 5+1, else fresh")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fresh", "zero", "keep", "multi", "masked", "growing"}))
      ->group(group);
  sub.add_option("--optimizer-state", o.optimizer_state, "At a new task moments and counts are kept or cleared")
      ->capture_default_str()
      ->check(CLI::IsMember({"keep", "clear"}))
      ->group(group);
  constexpr const char *what = "What is compared", *where = "Run folder";
  sub.add_option("--methods", o.methods, "Comma-separated methods, each name[:key=value...]; see --list-methods")
      ->capture_default_str()
      ->group(what);
  sub.add_option("--seeds", o.seeds,
                 "Seeds: 1,2,3 or 1-5. A seed fixes classes, order, initial weights and augmentation for every method")
      ->capture_default_str()
      ->group(what);
  sub.add_option("--validation", o.validation,
                 "Hold this share of every class's training images out, and test on them instead of test images (0: "
                 "test on test images)")
      ->check(number_in(0.0, 0.9))
      ->group(what);
  constexpr const char* sweep = "Sweep (settings chosen on held-out images, then reported on the test set)";
  sub.add_option("--sweep", o.sweep,
                 "Try these settings of every method that has the option: lr=1e-4,1e-3, sgd.lr=0.01,0.1, "
                 "arrow.kappa=0,1,10; may be given several times")
      ->delimiter(';')
      ->group(sweep);
  sub.add_option(
         "--sweep-seeds", o.sweep_seeds,
         "Seeds of the stream that settings are chosen on; none of --seeds, so that the comparison is new to all")
      ->capture_default_str()
      ->group(sweep);
  sub.add_option("--sweep-budget", o.sweep_budget,
                 "At most this many settings per method, drawn from its grid, so that all are tuned equally hard (0: "
                 "the whole grid)")
      ->check(CLI::Range(0, 100000))
      ->group(sweep);
  sub.add_option("--sweep-tasks", o.sweep_tasks,
                 "Settings are chosen on this many tasks of the stream's beginning (0: all of them)")
      ->check(CLI::Range(0, 1000000))
      ->group(sweep);
  sub.add_option("--jobs", o.jobs,
                 "Runs at a time, each a process of its own in OUT/runs (1: one after the other in this process)")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024))
      ->group(where);
  sub.add_flag(
         "--ranks-as-jobs", o.ranks_as_jobs,
         "Started by mpirun, srun or torchrun: the processes share the runs out among them (--jobs of each at a time) "
         "through OUT, a folder that all see; what a lost one was doing is taken over. Rank 0 writes the summary")
      ->group(where);
  sub.add_option("--stale-seconds", o.stale_seconds,
                 "--ranks-as-jobs: after so much silence a process on another host counts as lost")
      ->capture_default_str()
      ->check(number_in(1.0, 1e6))
      ->group(where);
  sub.add_flag("--test-earlier", o.test_earlier,
               "After each task, test every earlier one too: backward transfer and forgetting in summary.json. Needs a "
               "head that still knows them: keep, multi, masked or growing")
      ->group(what);
  sub.add_flag("--test-during", o.test_during,
               "Test before a task's first update and after each epoch: learning curves, their area, and how long a "
               "method takes to reach what a fresh network reaches")
      ->group(what);
  sub.add_option("--out", o.out, "Folder for config.toml, metrics.jsonl, summary.json, accuracy.png, checkpoints/")
      ->capture_default_str()
      ->group(where);
  sub.add_flag("--resume", o.resume, "Continue the run in --out from its last checkpoint")->group(where);
  sub.add_option("--checkpoint-seconds", o.checkpoint_seconds, "At most this much work is lost when the run is killed")
      ->capture_default_str()
      ->check(number_in(0.0, 1e6))
      ->group(where);
  sub.add_option("--probe", o.probe,
                 "When the network is diagnosed from inside (ranks, units, attention, gradients, by block and module): "
                 "every-task, every-10-tasks, every-500-steps, none")
      ->capture_default_str()
      ->group(where);
  sub.add_option("--probe-images", o.probe_images, "Test images that a diagnosis looks at (0: none)")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000))
      ->group(where);
  add_data_options(sub, o.data);
  add_training_options(sub, o.training);
  add_model_options(sub, o.model), add_start_options(sub, o.model);
  add_machine_options(sub, o.machine);
  add_config_option(sub, config);
}

void add_continual_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<ContinualOptions>();
  auto config = std::make_shared<std::string>();
  auto list = std::make_shared<bool>(false), recipes = std::make_shared<bool>(false);
  auto recipe = std::make_shared<std::string>();
  auto* sub =
      app.add_subcommand("continual", "Train on a stream of tasks with several methods and seeds; ends with a table");
  sub->description(
      "Trains one network on task after task, once per method and seed, and reports how well each new task was "
      "learned.\n"
      "A falling curve is loss of plasticity. Example (a few minutes on a laptop):\n\n"
      "  evergrad continual --stream procedural --tasks 10 --classes-per-task 5 --epochs 4 --train-limit 500 \\\n"
      "                     --dim 64 --depth 4 --heads 2 --methods adamw,sgd,arrow --seeds 1,2 --out runs/first\n\n"
      "Killed? Run the same command with --resume: it goes on to the same result, bit for bit.\n"
      "Method options are written name:key=value, for example --methods adamw,arrow:window=16:kappa=30.");
  add_continual_options(*sub, *o, *config);
  add_rank_options(*sub, o->ranks, true);
  sub->add_flag("--list-methods", *list, "Explain every method and stop")->group("What is compared");
  sub->add_option("--recipe", *recipe,
                  "A published protocol, or a small twin of one, by name: stream, model, methods and seeds; flags and "
                  "--config go before it. --list-recipes explains them")
      ->group("Stream");
  sub->add_flag("--list-recipes", *recipes, "Explain every recipe and stop")->group("Stream");
  sub->callback([o, config, list, recipe, recipes, sub, &run] {
    run = [o, config, list, recipe, recipes, sub] {
      if (*list) return list_methods(o->machine.plugin);
      if (*recipes) return list_recipes();
      apply_config(*sub, *config);
      apply_recipe(*sub, *recipe);
      apply_init(*sub, o->model);
      o->ranks.config = shared_flags(*sub);
      return run_continual(*o);
    };
  });
}

}  // namespace eg
