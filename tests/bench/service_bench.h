#ifndef GRADWATCH_TESTS_BENCH_SERVICE_BENCH_H_
#define GRADWATCH_TESTS_BENCH_SERVICE_BENCH_H_

#include <string>

#include "absl/types/span.h"

namespace gradwatch::bench {

// The subcommands of gradwatch_bench that measure the service around the engine; conventions as in
// commands.h. Each prints one JSON line for each result, with the ceiling measured in the same run,
// alternating. All traffic is on loopback, on free ports; all of them end by themselves.

// What the publication of a step costs the thread that trains, with readers and without.
int RunPublish(absl::Span<const std::string> args);

// Streams of statistics: a recorded job to many at once against a bare gRPC server that writes the
// same bytes; how late a step arrives; what 100 readers cost a job that trains.
int RunFanout(absl::Span<const std::string> args);

// CreateJob with validate_only against a bare unary call.
int RunSubmit(absl::Span<const std::string> args);

// Scrapes of /metrics, by number of jobs and by how fast they step.
int RunScrape(absl::Span<const std::string> args);

// Many small jobs at once, against one job times the cores.
int RunJobs(absl::Span<const std::string> args);

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_SERVICE_BENCH_H_
