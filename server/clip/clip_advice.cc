#include "server/clip/clip_advice.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gradwatch::clip {
namespace {

// p99 / p50 above which a tail is heavy.
constexpr double kHeavyTail = 20.0;
// A threshold for an exploding gradient is at most this.
constexpr double kExplodingMax = 1.0;
// Where to start without data (and where the gradient is known to explode).
constexpr double kStart = 1.0, kStartExploding = 0.5;
// After a change of threshold the norms are to be looked at anew.
constexpr int kStepsAnew = 200;
// Pascanu, Mikolov, Bengio 2013: thresholds from half to ten times the average norm converged.
constexpr double kAllowedMin = 0.5, kAllowedMax = 10.0;
// Of the means that the range is made from, the largest norms are left out.
constexpr double kTrimmedShare = 0.01;
// A threshold that clips so many steps, and by such a median factor, starves the updates.
constexpr double kStarvedShare = 0.98, kStarvedFactor = 0.1;
constexpr double kEntryQuantile = 0.999;
constexpr double kBinsPerOctave = 4.0;

std::string Text(double value) { return absl::StrFormat("%.4g", value); }

// Interpolated between order statistics, as stats::Window does it.
double Quantile(absl::Span<const double> sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = place - static_cast<double>(below);
  return sorted[below] * (1.0 - share) + sorted[above] * share;
}

// Summed in parts, so that norms near the largest double do not overflow.
double Mean(absl::Span<const double> values) {
  const auto count = static_cast<double>(values.size());
  double mean = 0.0;
  for (const double value : values) mean += value / count;
  return mean;
}

// m * 10^exponent, rounded once.
double Decimal(double m, int exponent) {
  return exponent >= 0 ? m * std::pow(10.0, exponent) : m / std::pow(10.0, -exponent);
}

// The largest 1-2-5 value up to `value`, which may miss it by a rounding of its ninth digit.
std::pair<double, int> Below125(double value) {
  constexpr double kSlack = 1.0 + 1e-9;
  int exponent = static_cast<int>(std::floor(std::log10(value)));
  if (Decimal(1.0, exponent) > value * kSlack) --exponent;
  if (Decimal(1.0, exponent + 1) <= value * kSlack) ++exponent;
  double m = 1.0;
  for (const double more : {2.0, 5.0}) {
    if (Decimal(more, exponent) <= value * kSlack) m = more;
  }
  return {m, exponent};
}

double Next125(double m, int exponent) {
  return m == 1.0 ? Decimal(2.0, exponent)
                  : (m == 2.0 ? Decimal(5.0, exponent) : Decimal(1.0, exponent + 1));
}

const v1::GlobalNormClip* CurrentClip(const v1::Job& job) {
  for (const v1::ClipPolicy& policy : job.clipping().policies()) {
    if (policy.has_global_norm() && (policy.global_norm().order() == v1::NORM_ORDER_L2 ||
                                     policy.global_norm().order() == v1::NORM_ORDER_UNSPECIFIED)) {
      return &policy.global_norm();
    }
  }
  return nullptr;
}

// The smallest threshold that the optimizer can tell from none: below, epsilon outweighs the
// gradient.
double FloorOf(const v1::Optimizer& optimizer) {
  return optimizer.has_sgd() ? 0.0 : 10.0 * optimizer.adam().epsilon();
}

std::string LossReduction(const v1::Task& task) {
  switch (task.kind_case()) {
    case v1::Task::kAdding:
    case v1::Task::kTemporalOrder:
    case v1::Task::KIND_NOT_SET:
      return "the mean over the rows of the batch, with one loss at the last time step";
    default:
      return "the mean over the rows of the batch and the time steps that count";
  }
}

void AddPublished(v1::ClipAdvice* advice) {
  static constexpr struct {
    const char *setting, *threshold, *source;
  } kPublished[] = {
      {"plain RNN, synthetic tasks, SGD", "1", "Pascanu et al. 2013"},
      {"LSTM, adding, T = 200 / 400 / 600", "50 / 50 / 5", "Bai et al. 2018"},
      {"LSTM, sequential MNIST", "1", "Bai et al. 2018"},
      {"LSTM, copy memory", "0.25 / 1 / 1", "Bai et al. 2018"},
      {"LSTM, JSB chorales", "1", "Bai et al. 2018"},
      {"LSTM, Nottingham", "0.5 to 1", "Bai et al. 2018"},
      {"LSTM, Penn Treebank words", "0.3", "Bai et al. 2018"},
      {"LSTM, Penn Treebank characters", "0.5", "Bai et al. 2018"},
      {"LSTM, text8", "0.5", "Bai et al. 2018"},
      {"LSTM, Penn Treebank words, small / large", "5 / 10", "Zaremba et al. 2014"},
      {"AWD-LSTM, rate 30", "0.25", "Merity et al. 2018"},
      {"sequence to sequence, gradient / 128", "5", "Sutskever et al. 2014"},
      {"LSTM, text8", "1", "Tallec, Ollivier 2018"},
  };
  for (const auto& row : kPublished) {
    v1::PublishedThreshold* published = advice->add_published();
    published->set_setting(row.setting);
    published->set_threshold(row.threshold);
    published->set_source(row.source);
  }
}

std::optional<double> ValueThreshold(const EntryMagnitudes& magnitudes) {
  double total = magnitudes.zeros;
  for (const auto& bin : magnitudes.bins) total += bin.count;
  double seen = magnitudes.zeros;
  for (const auto& bin : magnitudes.bins) {
    seen += bin.count;
    if (bin.count > 0.0 && seen >= kEntryQuantile * total) return bin.end;
  }
  return std::nullopt;
}

// Makes one piece of advice.
class Adviser {
 public:
  explicit Adviser(const AdviceInputs& inputs)
      : inputs_(inputs), steps_(static_cast<int64_t>(inputs.window.norms.size())) {}

  v1::ClipAdvice Advise() && {
    advice_.set_job(inputs_.job.name());
    advice_.set_explosion_alerts(inputs_.explosion_alerts);
    if (!inputs_.window.norms.empty()) *advice_.mutable_window() = Distribute(inputs_.window);
    if (!inputs_.kept.norms.empty()) *advice_.mutable_kept() = Distribute(inputs_.kept);
    const int64_t all = steps_ + inputs_.window.nonfinite_steps;
    if (all > 0) {
      advice_.set_clip_rate(static_cast<double>(inputs_.window.clipped_steps) /
                            static_cast<double>(all));
    }
    Choose();
    if (const v1::GlobalNormClip* current = CurrentClip(inputs_.job)) {
      *advice_.mutable_current() = EffectOf(current->max_norm(), inputs_.window.norms);
    }
    for (const double threshold : inputs_.thresholds) {
      *advice_.add_asked() = EffectOf(threshold, inputs_.window.norms);
    }
    SetRange();
    SetValueThreshold();
    Assume();
    Warn();
    return std::move(advice_);
  }

 private:
  const v1::NormDistribution& norms() const { return advice_.window(); }
  bool exploding() const { return inputs_.explosion_alerts > 0 || heavy_tail(); }
  bool heavy_tail() const { return norms().tail_ratio() > kHeavyTail; }
  std::string Newest() const { return absl::StrCat("of the newest ", steps_, " steps"); }

  void Recommend(double threshold) {
    const double floor = FloorOf(inputs_.job.optimizer());
    raised_ = threshold < floor;
    if (raised_) threshold = RoundUp125(floor);
    *advice_.mutable_recommended() = EffectOf(threshold, inputs_.window.norms);
  }
  void OrElse(double threshold) {
    if (threshold == advice_.recommended().max_norm() ||
        threshold < FloorOf(inputs_.job.optimizer())) {
      return;
    }
    *advice_.mutable_alternative() = EffectOf(threshold, inputs_.window.norms);
  }

  void Choose() {
    // Without a gradient there is nothing to take a share of.
    if (steps_ < kAdviceStepsMin || norms().p10() <= 0.0) return ChooseWithoutData();
    if (exploding()) return ChooseForExplosion();
    if (inputs_.job.optimizer().has_sgd()) return ChooseForSgd();
    ChooseForAdam();
  }

  void ChooseWithoutData() {
    advice_.set_basis(v1::ClipAdvice::BASIS_NO_DATA);
    const bool explosion = inputs_.explosion_alerts > 0 || inputs_.window.nonfinite_steps > 0;
    Recommend(explosion ? kStartExploding : kStart);
    OrElse(explosion ? kStart : kStartExploding);
    advice_.set_reason(absl::StrCat(
        "There is too little to go by: start with ", Text(advice_.recommended().max_norm()),
        explosion ? ", the lower of the usual values since the gradient exploded" : "",
        ", look again after ", kAdviceStepsMin, " steps, and adjust."));
    AddPublished(&advice_);
  }

  void ChooseForExplosion() {
    advice_.set_basis(v1::ClipAdvice::BASIS_EXPLODING);
    Recommend(RoundDown125(std::min(norms().p50(), kExplodingMax)));
    if (kStartExploding < advice_.recommended().max_norm()) OrElse(kStartExploding);
    std::string cause;
    if (heavy_tail()) {
      cause = absl::StrCat("the largest 1 % of the norms lie above ", Text(norms().tail_ratio()),
                           " times their median");
    }
    if (inputs_.explosion_alerts > 0) {
      absl::StrAppend(&cause, cause.empty() ? "" : " and ", "alerts told of an explosion");
    }
    advice_.set_reason(absl::StrCat(
        "The gradient explodes (", cause, "): the median norm ", Newest(), ", ",
        Text(norms().p50()), ", at most ", Text(kExplodingMax), ", rounded down; look again after ",
        kStepsAnew, " steps with it, since norms change once it acts."));
  }

  void ChooseForSgd() {
    advice_.set_basis(v1::ClipAdvice::BASIS_STEP_SIZE);
    const bool stuck = inputs_.stands_still && inputs_.window.clipped_steps == 0;
    const double p10 = RoundDown125(norms().p10());
    Recommend(stuck ? std::min(p10, kStartExploding) : p10);
    if (stuck && p10 > kStartExploding) return ExplainStuck();
    // Never above the 90th percentile.
    double bolder = RoundDown125(norms().p50());
    if (bolder == advice_.recommended().max_norm()) bolder = RoundUp125(bolder * 1.01);
    if (bolder <= norms().p90()) OrElse(bolder);
    advice_.set_reason(absl::StrCat(
        "With SGD the threshold sets the size of most steps: the 10th percentile of the norms ",
        Newest(), ", ", Text(norms().p10()), ", rounded down."));
  }

  // The norms say where a network stands that learns nothing.
  void ExplainStuck() {
    OrElse(kStart);
    advice_.set_reason(absl::StrCat(
        "The loss stands still and no step was clipped, so the norms ", Newest(),
        " (10th percentile ", Text(norms().p10()),
        ") are not those of a network that learns: start with ", Text(kStartExploding),
        ", the lower of the usual values, and look again after ", kStepsAnew, " steps with it."));
  }

  void ChooseForAdam() {
    advice_.set_basis(v1::ClipAdvice::BASIS_SPIKE_GUARD);
    Recommend(RoundUp125(norms().p90()));
    OrElse(RoundUp125(norms().p95()));
    advice_.set_reason(absl::StrCat(
        "Adam does not care for the gradient's scale, so the threshold only guards against "
        "spikes: the 90th percentile of the norms ",
        Newest(), ", ", Text(norms().p90()), ", rounded up."));
  }

  void SetRange() {
    if (steps_ < kAdviceStepsMin) return;
    advice_.set_allowed_min(kAllowedMin * norms().trimmed_mean());
    advice_.set_allowed_max(kAllowedMax * norms().trimmed_mean());
  }

  void SetValueThreshold() {
    if (steps_ < kAdviceStepsMin) return;
    const std::optional<double> threshold = ValueThreshold(inputs_.magnitudes);
    if (!threshold.has_value()) return;
    advice_.set_value_threshold(*threshold);
    AddWarning(
        "a threshold for single entries turns the gradient's direction: on temporal order 0.1 "
        "failed on 2 of 2 seeds where a norm of 0.5 solved all");
  }

  void AddAssumption(std::string text) { advice_.add_assumptions(std::move(text)); }
  void AddWarning(std::string text) { advice_.add_warnings(std::move(text)); }

  void Assume() {
    AddAssumption(
        absl::StrCat("the loss is ", LossReduction(inputs_.job.task()),
                     "; summed instead, all norms and thresholds grow by what is summed"));
    AddAssumption("norms are L2 over all parameters together, before the first policy");
    if (steps_ < kAdviceStepsMin) return;
    AddAssumption(
        "clip rates are for the norms as they were; another threshold leads to other norms");
  }

  void Warn() {
    const int64_t nonfinite = inputs_.window.nonfinite_steps;
    if (steps_ < kAdviceStepsMin) {
      AddWarning(absl::StrCat("only ", steps_, " steps with a finite norm; ", kAdviceStepsMin,
                              " are needed to advise from them"));
    } else if (steps_ < inputs_.wanted_steps) {
      AddWarning(absl::StrCat("only ", steps_, " steps with a finite norm where ",
                              inputs_.wanted_steps, " are asked for"));
    }
    if (nonfinite > 0) AddWarning(absl::StrCat(nonfinite, " steps were not finite and left out"));
    if (steps_ > 0 && norms().p10() <= 0.0) AddWarning("the gradient is 0 in many steps");
    if (steps_ < kAdviceStepsMin) return;
    if (advice_.clip_rate() == 0.0) {
      AddWarning(
          "no step of these was clipped: the allowed range is meant for the norms of a run that is "
          "clipped, so look again once it is");
    }
    if (raised_) {
      AddWarning(absl::StrCat("raised to ten times what Adam's epsilon resolves, ",
                              Text(FloorOf(inputs_.job.optimizer()))));
    }
    const v1::ThresholdEffect& current = advice_.current();
    if (current.clip_rate() > kStarvedShare && current.median_coefficient() < kStarvedFactor) {
      AddWarning(absl::StrCat("the present threshold, ", Text(current.max_norm()),
                              ", scales nearly every step, by a median factor of ",
                              Text(current.median_coefficient()),
                              ": with SGD the rate in effect is that much lower"));
    }
    const double chosen = advice_.recommended().max_norm();
    if (chosen < advice_.allowed_min() || chosen > advice_.allowed_max()) {
      AddWarning(absl::StrCat(Text(chosen), " lies outside of the allowed range, ",
                              Text(advice_.allowed_min()), " to ", Text(advice_.allowed_max())));
    }
    const auto& effect = advice_.recommended();
    if (effect.clip_rate() == 0.0) {
      AddWarning(absl::StrCat(Text(chosen), " would have clipped no step of these"));
    }
  }

  const AdviceInputs& inputs_;
  const int64_t steps_;  // With a finite norm.
  bool raised_ = false;
  v1::ClipAdvice advice_;
};

}  // namespace

double RoundDown125(double value) {
  const auto [m, exponent] = Below125(value);
  return Decimal(m, exponent);
}

double RoundUp125(double value) {
  constexpr double kSlack = 1.0 - 1e-9;
  const auto [m, exponent] = Below125(value);
  const double below = Decimal(m, exponent);
  return below >= value * kSlack ? below : Next125(m, exponent);
}

v1::NormDistribution Distribute(const NormHistory& history) {
  std::vector<double> sorted = history.norms;
  std::sort(sorted.begin(), sorted.end());
  const size_t count = sorted.size();
  v1::NormDistribution distribution;
  distribution.set_first_step(history.first_step);
  distribution.set_last_step(history.last_step);
  distribution.set_steps(static_cast<int64_t>(count));
  distribution.set_nonfinite_steps(history.nonfinite_steps);
  distribution.set_mean(Mean(sorted));
  const auto trimmed = static_cast<size_t>(kTrimmedShare * static_cast<double>(count));
  distribution.set_trimmed_mean(Mean(absl::MakeSpan(sorted).first(count - trimmed)));
  distribution.set_minimum(sorted.front());
  distribution.set_p10(Quantile(sorted, 0.10));
  distribution.set_p50(Quantile(sorted, 0.50));
  distribution.set_p90(Quantile(sorted, 0.90));
  distribution.set_p95(Quantile(sorted, 0.95));
  distribution.set_p99(Quantile(sorted, 0.99));
  distribution.set_maximum(sorted.back());
  if (distribution.p50() > 0.0) {
    distribution.set_tail_ratio(distribution.p99() / distribution.p50());
  }

  const auto edge = [](int bin) { return std::exp2(bin / kBinsPerOctave); };
  auto at = std::upper_bound(sorted.begin(), sorted.end(), 0.0);
  if (at == sorted.end()) return distribution;
  int bin = static_cast<int>(std::floor(kBinsPerOctave * std::log2(*at)));
  if (edge(bin) > *at) --bin;
  while (at != sorted.end()) {
    const auto end = std::lower_bound(at, sorted.end(), edge(bin + 1));
    v1::NormBin* message = distribution.add_bins();
    message->set_lower(edge(bin));
    message->set_upper(edge(bin + 1));
    message->set_steps(end - at);
    at = end;
    ++bin;
  }
  return distribution;
}

v1::ThresholdEffect EffectOf(double threshold, absl::Span<const double> norms) {
  v1::ThresholdEffect effect;
  effect.set_max_norm(threshold);
  if (norms.empty()) return effect;
  std::vector<double> coefficients;
  coefficients.reserve(norms.size());
  double clipped = 0.0;
  for (const double norm : norms) {
    if (norm > threshold) ++clipped;
    coefficients.push_back(norm > threshold ? threshold / norm : 1.0);
  }
  std::sort(coefficients.begin(), coefficients.end());
  effect.set_clip_rate(clipped / static_cast<double>(norms.size()));
  effect.set_mean_coefficient(Mean(coefficients));
  effect.set_median_coefficient(Quantile(coefficients, 0.5));
  return effect;
}

v1::ClipAdvice AdviseOnClipping(const AdviceInputs& inputs) { return Adviser(inputs).Advise(); }

}  // namespace gradwatch::clip
