#ifndef GRADWATCH_CLIENT_CLI_ADVISE_H_
#define GRADWATCH_CLIENT_CLI_ADVISE_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "gradwatch/v1/clipping.pb.h"
#include "gradwatch/v1/job.pb.h"

// Advice on the clip threshold as people read it. Pure functions.
namespace gradwatch::cli {

struct AdviceStyle {
  size_t columns = 80;  // At least 60 are used.
  bool unicode = true;
};

// Norms as bars, one for each stretch of equal ratio, at most 16 of them, with the thresholds of
// the advice where they lie. Lines are at most `columns` wide.
std::string NormPicture(const v1::ClipAdvice& advice, const AdviceStyle& style);

// The advice as rows of what and value: threshold, basis, reason, range, assumptions, warnings,
// published thresholds, the command that follows it. Values may be empty.
std::vector<std::pair<std::string, std::string>> AdviceRows(const v1::ClipAdvice& advice,
                                                            const v1::Job& job);

// What each threshold does to the norms of the window: threshold, what it is ("advised", "or",
// "now", "asked"), share of steps clipped, mean factor.
std::vector<std::vector<std::string>> ThresholdRows(const v1::ClipAdvice& advice);

// The whole advice: threshold and reason, quantiles, picture, what each threshold would do (shadow
// clips beside them), range, assumptions, warnings, and the command that follows it.
std::string DescribeAdvice(const v1::ClipAdvice& advice, const v1::Job& job,
                           const AdviceStyle& style);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_ADVISE_H_
