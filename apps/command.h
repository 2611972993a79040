// apps/command.h - the subcommands of the one binary. Each function adds one subcommand to `app`; when the user chose
// it, parsing sets `run` to what it does. run() returns the exit code.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace eg {

void add_continual_command(CLI::App& app, std::function<int()>& run);
void add_train_command(CLI::App& app, std::function<int()>& run);
void add_eval_command(CLI::App& app, std::function<int()>& run);
void add_predict_command(CLI::App& app, std::function<int()>& run);
void add_explain_command(CLI::App& app, std::function<int()>& run);
void add_data_command(CLI::App& app, std::function<int()>& run);
void add_bench_command(CLI::App& app, std::function<int()>& run);
void add_diagnose_command(CLI::App& app, std::function<int()>& run);
void add_report_command(CLI::App& app, std::function<int()>& run);
void add_import_command(CLI::App& app, std::function<int()>& run);
void add_export_command(CLI::App& app, std::function<int()>& run);
void add_info_command(CLI::App& app, std::function<int()>& run);
/// `completion` and `man`: they tell what all the other commands take, so `app` must outlive run().
void add_shell_commands(CLI::App& app, std::function<int()>& run);

}  // namespace eg
