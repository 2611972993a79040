// apps/evergrad.cpp - the one binary: parses the command line, runs one subcommand, turns errors into one clear line.
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>

#include "apps/command.h"
#include "apps/run/processes.h"
#include "cuda/register.h"
#include "engine/build_info.h"
#include "engine/error.h"

int main(int argc, char** argv) {
  eg::end_with_starter();
  CLI::App app{
      "evergrad trains Vision Transformers on endless streams of tasks, measures how their ability to learn decays, "
      "and\n"
      "keeps it alive with ARROW (arXiv 2603.07787).\n\n"
      "Start here:   evergrad continual --stream procedural --tasks 5 --dim 64 --depth 4 --heads 2 --out runs/first\n"
      "Then:         evergrad report runs/first\n"
      "Everything:   evergrad continual --help, --list-methods, --list-recipes"};
  app.name("evergrad");
  app.set_version_flag("--version", "evergrad " + eg::build_info().version);
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // the last occurrence of a flag wins
  app.get_formatter()->column_width(34);

  std::function<int()> run;
  eg::add_continual_command(app, run);
  eg::add_train_command(app, run);
  eg::add_eval_command(app, run);
  eg::add_predict_command(app, run);
  eg::add_diagnose_command(app, run);
  eg::add_report_command(app, run);
  eg::add_explain_command(app, run);
  eg::add_data_command(app, run);
  eg::add_bench_command(app, run);
  eg::add_import_command(app, run);
  eg::add_export_command(app, run);
  eg::add_info_command(app, run);
  eg::add_shell_commands(app, run);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    std::cerr << "evergrad: " << e.what() << "\nRun 'evergrad"
              << (argc > 1 && argv[1][0] != '-' ? std::string(" ") + argv[1] : "")
              << " --help' for what is possible.\n";
    return 2;
  } catch (const std::exception& e) {
    std::cerr << "evergrad: " << e.what() << '\n';
    return 2;
  }
  try {
    eg::register_cuda_devices();
    return run ? run() : 0;
  } catch (const eg::Error& e) {
    std::cerr << "evergrad: " << e.what() << '\n';
    if (e.kind == eg::Kind::internal)
      std::cerr << "This is a bug in evergrad (" << e.at.file_name() << ':' << e.at.line() << "); please report it.\n";
    return e.kind == eg::Kind::usage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    std::cerr << "evergrad: out of memory; use a smaller --batch or model\n";
    return 1;
  } catch (const std::exception& e) {
    std::cerr << "evergrad: " << e.what() << '\n';
    return 1;
  }
}
