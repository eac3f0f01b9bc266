// service_bench: the subcommands of service_bench.h as a program of their own.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/service_bench.h"

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + std::min(argc, 2), argv + argc);
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "publish") return gradwatch::bench::RunPublish(args);
  if (command == "fanout") return gradwatch::bench::RunFanout(args);
  if (command == "submit") return gradwatch::bench::RunSubmit(args);
  if (command == "scrape") return gradwatch::bench::RunScrape(args);
  if (command == "jobs") return gradwatch::bench::RunJobs(args);
  std::fprintf(stderr, "usage: service_bench_main publish|fanout|submit|scrape|jobs …\n");
  return 2;
}
