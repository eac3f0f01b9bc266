#ifndef GRADWATCH_CLIENT_CLI_BATCH_H_
#define GRADWATCH_CLIENT_CLI_BATCH_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "client/cli/command.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/job_service.pb.h"

namespace gradwatch::cli {

// How the examples of a batch are shown.
struct BatchStyle {
  bool full = false;    // Otherwise the middle of long sequences and columns beyond 8 are left out.
  bool unicode = true;  // An ellipsis is one character.
};

// The examples of a batch of `job` in words: a block for each, with where it came from, its length,
// and a table or the text. Pure.
std::string DescribeBatch(const v1::TrainingBatch& batch, const v1::Job& job,
                          const BatchStyle& style);

// The flag for how many examples are shown, and what is wrong with its value.
constexpr int64_t kExamplesDefault = 4;
Flag ExamplesFlag(int64_t* examples);
absl::Status CheckExamples(int64_t examples);

// Fetches the batch of a step and prints it; `job` is "jobs/{id}".
absl::Status PrintBatch(const std::string& job, int64_t step, int64_t examples, bool full,
                        client::Client* client, Session* session);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_BATCH_H_
