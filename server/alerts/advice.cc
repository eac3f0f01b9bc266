#include "server/alerts/advice.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace gradwatch::alerts {
std::string Number(double value) { return absl::StrFormat("%.4g", value); }

absl::string_view JobId(const v1::Job& job) { return absl::StripPrefix(job.name(), "jobs/"); }

bool Clips(const v1::Job& job) { return !job.clipping().policies().empty(); }

bool IsGated(const v1::Job& job) {
  return job.model().cell() == v1::Model::CELL_GRU || job.model().cell() == v1::Model::CELL_LSTM;
}

double RoundDown(double value) {
  value *= 1.0 + 1e-9;  // 99.999999999 is 100 that was computed.
  const double power = std::pow(10.0, std::floor(std::log10(value)));
  const double digit = value / power;
  return (digit >= 5.0 ? 5.0 : digit >= 2.0 ? 2.0 : 1.0) * power;
}

namespace {

// A first clip threshold for a run that explodes: the median of recent norms, never above 1, and
// 1 while fewer than 100 norms were seen.
double SuggestedMaxNorm(const Baselines& past) {
  const stats::LogMadWindow& norms = past.norms.values();
  constexpr int kNormsNeeded = 100;
  constexpr double kSmallest = 1e-6;
  if (norms.size() < kNormsNeeded) return 1.0;
  return std::max(kSmallest, RoundDown(std::min(1.0, norms.median())));
}

}  // namespace

std::string ClipAt(const v1::Job& job, double max_norm) {
  const std::string limit = Number(max_norm);
  return absl::StrCat("set clipping.policies to global_norm with max_norm ", limit,
                      " (gradwatch update ", JobId(job), " --clip ", limit, ")");
}

std::string ClipAdvice(const Context& context) {
  return ClipAt(context.job, SuggestedMaxNorm(context.baselines));
}

std::string RateAt(const v1::Job& job, double rate) {
  return absl::StrCat("optimizer.learning_rate, for instance from ",
                      Number(job.optimizer().learning_rate()), " to ", Number(rate),
                      " (gradwatch update ", JobId(job), " --lr ", Number(rate), ")");
}

std::string LowerRateAdvice(const v1::Job& job) {
  return absl::StrCat("lower ", RateAt(job, job.optimizer().learning_rate() / 2));
}

std::string RecurrentWeightsAdvice(const v1::Job& job) {
  const v1::Initializer& init = job.model().initialization().recurrent_weights();
  if (init.has_orthogonal_gain() && init.orthogonal_gain() != 1.0) {
    return absl::StrCat("model.initialization.recurrent_weights.orthogonal_gain 1.0 instead of ",
                        Number(init.orthogonal_gain()));
  }
  if (init.has_identity_scale() && init.identity_scale() != 1.0) {
    return absl::StrCat("model.initialization.recurrent_weights.identity_scale 1.0 instead of ",
                        Number(init.identity_scale()));
  }
  return "model.initialization.recurrent_weights.orthogonal_gain 1.0";
}

std::string GatedAdvice(const v1::Job& job) {
  return IsGated(job) ? "" : ", or model.cell CELL_LSTM or CELL_GRU";
}

std::string VanishingAdvice(const v1::Job& job) {
  if (job.model().cell() == v1::Model::CELL_LSTM) {
    return absl::StrCat("For a new job, model.initialization.forget_gate_bias 1 or more, or ",
                        RecurrentWeightsAdvice(job), ".");
  }
  return absl::StrCat("For a new job, ", RecurrentWeightsAdvice(job), GatedAdvice(job),
                      IsGated(job) ? "." : " with model.initialization.forget_gate_bias 1.");
}

}  // namespace gradwatch::alerts
