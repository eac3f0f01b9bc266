// gradwatch_bench: every benchmark of the project that is a program of its own.
// `gradwatch_bench --help` lists them, `gradwatch_bench NAME --help` explains one.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/commands.h"
#include "tests/bench/service_bench.h"

namespace gradwatch::bench {
namespace {

struct Command {
  const char* name;
  const char* purpose;
  int (*run)(absl::Span<const std::string> args);
};

constexpr Command kCommands[] = {
    {"step", "Training steps, as tests/bench/pytorch_step.py times PyTorch's", &RunStep},
    {"cost", "What statistics cost of a step's CPU time", &RunCost},
    {"gemm", "The engine's matrix products beside Eigen's", &RunGemm},
    {"peak", "What this CPU can do at most: multiply-adds and memory", &RunPeak},
    {"publish", "What publishing a step costs the thread that trains", &RunPublish},
    {"fanout", "Streams to many readers beside a bare gRPC server", &RunFanout},
    {"submit", "Job creation beside a bare unary call", &RunSubmit},
    {"scrape", "Scrapes of /metrics by number of jobs and step rate", &RunScrape},
    {"jobs", "Many small jobs beside one job times the cores", &RunJobs},
    {"ladder", "What the response ladder rescues: D7 with spoilt batches", &RunLadder},
    {"detection", "What the alert rules make of runs whose trouble is known", &RunDetection},
    {"count", "A few small steps for an instruction counter", &RunCount},
};

constexpr char kFooter[] =
    "\nExamples:\n"
    "  gradwatch_bench step --preset all --threads 2 --stats full --json\n"
    "\nHelp for one: gradwatch_bench NAME --help\n";

int Run(const std::vector<std::string>& args) {
  CLI::App app("Benchmarks of gradwatch; results go to standard output.", "gradwatch_bench");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::help);
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(command.name, command.purpose);
    sub->set_help_flag();   // The command's own.
    sub->prefix_command();  // What follows the name is the command's to read.
  }
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const CLI::App* chosen = app.get_subcommands().front();
  for (const Command& command : kCommands) {
    if (chosen->get_name() == command.name) return command.run(chosen->remaining());
  }
  return 2;
}

}  // namespace
}  // namespace gradwatch::bench

int main(int argc, char** argv) {
  return gradwatch::bench::Run(std::vector<std::string>(argv + 1, argv + argc));
}
