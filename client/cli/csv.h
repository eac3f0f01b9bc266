#ifndef GRADWATCH_CLIENT_CLI_CSV_H_
#define GRADWATCH_CLIENT_CLI_CSV_H_

#include <string>

#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"

// Step statistics as CSV (RFC 4180 with LF). Pure functions. What is absent is an empty cell; NaN
// and infinities are NaN, Infinity and -Infinity; numbers have as many digits as bring back the
// same bits.
namespace gradwatch::cli {

// The heading: scalars, then for each parameter its norm and largest entry,
// "norm/rnn.weight_hh_l0", then for each shadow clip whether it would have clipped and its
// coefficient, "shadow_clipped/1 norm 0.25".
std::string CsvHeader(const v1::Job& job);

// One step of that job under that heading.
std::string CsvRow(const v1::StepStats& step, const v1::Job& job);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_CSV_H_
