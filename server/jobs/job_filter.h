#ifndef GRADWATCH_SERVER_JOBS_JOB_FILTER_H_
#define GRADWATCH_SERVER_JOBS_JOB_FILTER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::jobs {

// A list of jobs is narrowed by terms joined by AND: `state = RUNNING`, `state != FAILED`,
// `labels.KEY = "VALUE"`, `labels:KEY`. Values may stand with or without quotes. Immutable.
class JobFilter {
 public:
  static constexpr size_t kLengthMax = 1024;

  // INVALID_ARGUMENT about `filter`, with the column (from 1) where it cannot be read.
  static absl::StatusOr<JobFilter> Parse(absl::string_view text);

  bool Matches(const v1::Job& job) const;

 private:
  struct Term {
    enum class Kind { kState, kNotState, kLabel, kHasLabel };
    Kind kind;
    v1::Job::State state = v1::Job::STATE_UNSPECIFIED;
    std::string key;
    std::string value;
  };
  friend class JobFilterParser;
  std::vector<Term> terms_;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_JOB_FILTER_H_
