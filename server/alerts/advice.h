#ifndef GRADWATCH_SERVER_ALERTS_ADVICE_H_
#define GRADWATCH_SERVER_ALERTS_ADVICE_H_

#include <string>

#include "absl/strings/string_view.h"
#include "gradwatch/v1/job.pb.h"
#include "server/alerts/rules.h"

// Pieces that advice is put together from. They name settings of v1.Job by their path, and the
// command that changes them where they may change while the job runs.
namespace gradwatch::alerts {

// A number as people read it: four significant digits.
std::string Number(double value);
// 1, 2 or 5 times a power of ten, not above `value`, which is above 0.
double RoundDown(double value);

absl::string_view JobId(const v1::Job& job);
bool Clips(const v1::Job& job);
bool IsGated(const v1::Job& job);

// "set clipping.policies to global_norm with max_norm 0.5 (gradwatch update ...)"
std::string ClipAt(const v1::Job& job, double max_norm);
// The same with a first threshold for a run that explodes.
std::string ClipAdvice(const Context& context);
// "optimizer.learning_rate, for instance from 0.1 to 0.05 (gradwatch update ...)"
std::string RateAt(const v1::Job& job, double rate);
// "lower optimizer.learning_rate, ..." to half of it.
std::string LowerRateAdvice(const v1::Job& job);
// How a new job could start with recurrent weights that carry the gradient evenly.
std::string RecurrentWeightsAdvice(const v1::Job& job);
// ", or model.cell ..." for a plain cell.
std::string GatedAdvice(const v1::Job& job);
// What helps against a gradient that fades through time, as a sentence.
std::string VanishingAdvice(const v1::Job& job);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_ADVICE_H_
