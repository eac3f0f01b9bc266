#ifndef GRADWATCH_CLIENT_CLI_SWEEP_H_
#define GRADWATCH_CLIENT_CLI_SWEEP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/compare.h"
#include "client/cli/text.h"
#include "google/protobuf/struct.pb.h"
#include "gradwatch/v1/clipping.pb.h"

// One job for each way to clip and each seed. Pure functions and values.
namespace gradwatch::cli {

// One way to clip.
struct SweepClip {
  std::string name;  // As it was asked for: "0.5", "none", "value:0.1".
  v1::Clipping clipping;
};

// "0.25,0.5,none,value:0.1": policies as ParsePolicies reads them, and "none".
absl::StatusOr<std::vector<SweepClip>> ParseSweepClips(const std::string& text);

// "0,1,2" and "0-4". INVALID_ARGUMENT for anything else, and for more than 1000.
absl::StatusOr<std::vector<uint64_t>> ParseSeeds(const std::string& text);

// "sweep-1-clip-0-5-seed-3": of the letters that an id may have.
std::string SweepJobId(const std::string& sweep, const std::string& clip, uint64_t seed);

// What one way to clip came to.
struct SweepGroup {
  std::string clip;
  std::vector<JobSummary> runs;  // One for each seed; not empty.
};

struct SweepScore {
  int solved = 0;          // Runs with at least 95 % right answers.
  bool can_solve = false;  // The task tells right answers.
  int failed = 0;          // Runs that did not succeed.
  double median_loss = 0;  // Of the final losses; infinite for a run that failed.
  double worst_loss = 0;
  double mean_clip_rate = 0;
};
SweepScore ScoreOf(const SweepGroup& group);

// The index of the best group: most runs solved, then the lowest median loss. Nothing when no run
// came to a finite loss.
std::optional<size_t> BestOf(const std::vector<SweepGroup>& groups);

// One row for each group, the best with a star.
Table SweepTable(const std::vector<SweepGroup>& groups);

// "Best: norm 0.5, solved 3 of 3, median loss 0.01.", or that there is none.
std::string SweepVerdict(const std::vector<SweepGroup>& groups);

// The same for programs, with the jobs as ComparisonJson has them.
google::protobuf::Struct SweepJson(const std::string& sweep, const std::vector<SweepGroup>& groups);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_SWEEP_H_
