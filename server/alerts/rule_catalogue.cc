#include "server/alerts/rule_catalogue.h"

#include <cmath>
#include <cstddef>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/alerts/rules.h"
#include "server/alerts/thresholds.h"

namespace gradwatch::alerts {
namespace {

constexpr int64_t kStepsMax = 1'000'000;

// What a rule may have as its window_steps, ends included.
struct WindowRange {
  int64_t low = 0;
  int64_t high = 0;
};
constexpr WindowRange kNoWindow = {0, 0};
constexpr WindowRange kPastWindow = {16, 1000};  // Fewer have no spread.
constexpr WindowRange kStepsWindow = {10, 1000};
constexpr WindowRange kHalvesWindow = {20, 10'000};
constexpr WindowRange kAverageWindow = {1, 10'000};

// Where a job may put a rule's threshold: above `low`, or below `high`, ends left out.
struct Range {
  double low;
  double high;
};

// One row of the catalogue.
struct Row {
  v1::RuleId id;
  const char* name;
  const char* description;
  std::string condition;
  v1::Severity severity;
  const char* statistics_level;
  // Where there is none: a range without anything in it.
  Range range;
  Range second_range;
  Settings defaults;
  WindowRange window = kNoWindow;  // None where the rule judges each step by itself.

  bool has_window() const { return window.high > 0; }
  bool has_threshold() const { return range.low < range.high; }
  bool has_second_threshold() const { return second_range.low < second_range.high; }
};

std::string Text(double number) { return absl::StrFormat("%.4g", number); }

std::vector<Row> Rows() {
  return {
      {v1::RULE_ID_NON_FINITE,
       "NON_FINITE",
       "NaN or infinity in a loss, state, gradient or would-be weight.",
       "the step is not finite; the value is the number of such steps in a row",
       v1::SEVERITY_CRIT,
       "OFF",
       {},
       {},
       {.threshold = kNonFiniteSteps, .for_steps = 1, .resolve_steps = 20}},
      {v1::RULE_ID_EXPLODING_ABS,
       "EXPLODING_ABS",
       "The gradient norm before clipping passed a limit; WARN when the job clips, else CRIT.",
       absl::StrCat("norm_before > threshold; resolves below ", Text(kNormResolvePart), " of it"),
       v1::SEVERITY_CRIT,
       "OFF",
       {0.0, 1e30},
       {},
       {.threshold = kNormLimit, .for_steps = 1, .resolve_steps = 50}},
      {v1::RULE_ID_LOSS_DIVERGENCE,
       "LOSS_DIVERGENCE",
       "The loss runs away; WARN for a relapse below the first loss, else CRIT.",
       absl::StrCat("loss > threshold x first finite loss; or its moving average (window_steps) > "
                    "second_threshold x the larger of its best and ",
                    Text(100 * kBestFloorPart), " % of the first loss, ", kEmaForFactor,
                    " times as long"),
       v1::SEVERITY_CRIT,
       "OFF",
       {1.0, 1e6},
       {1.0 / kEmaOverBestResolvePart, 1e6},
       {.threshold = kLossOverFirst,
        .second_threshold = kEmaOverBest,
        .warmup_steps = 1,
        .for_steps = 2,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kLossWindow},
       kAverageWindow},
      {v1::RULE_ID_EXPLODING_REL,
       "EXPLODING_REL",
       "The gradient norm is far above its own recent past, again and again; INFO when it was "
       "clipped, and for a single spike that was not.",
       absl::StrCat(kSpikesNeeded, " of the last ", kSpikeWindow,
                    " steps (INFO: 1 that was not clipped, at once) with robust z of ln "
                    "norm_before > threshold and "
                    "norm_before > second_threshold x median, against the window_steps norms "
                    "before; from ",
                    kSpikeSamplesMin,
                    " norms on (half the window, if that is less), unless the "
                    "loss is below ",
                    Text(100 * kLearntPart), " % of the first or falls fast"),
       v1::SEVERITY_WARN,
       "OFF",
       {0.0, 1000.0},
       {1.0, 1e6},
       {.threshold = kNormZ,
        .second_threshold = kNormOverMedian,
        .warmup_steps = 20,
        .for_steps = 1,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kSpikePast},
       kPastWindow},
      {v1::RULE_ID_RECURRENT_EXPANSION,
       "RECURRENT_EXPANSION",
       "The gradient grows backwards through time: an explosion is likely.",
       absl::StrCat("moving average (window_steps) of the growth factor > threshold and more than ",
                    Text(kExpansionDecadesMin),
                    " decades over the back-propagated length, or more than second_threshold "
                    "decades"),
       v1::SEVERITY_WARN,
       "BASIC",
       {1.0, 10.0},
       {0.0, 1000.0},
       {.threshold = kGrowthLimit,
        .second_threshold = kExpansionDecades,
        .warmup_steps = 20,
        .for_steps = 20,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kGrowthWindow},
       kAverageWindow},
      {v1::RULE_ID_VANISHING_THROUGH_TIME,
       "VANISHING_THROUGH_TIME",
       "The gradient fades before it reaches the start of the sequence; WARN when the loss stands "
       "still, too.",
       absl::StrCat("decades over a back-propagated length of at least ", kVanishingWindowMin,
                    " time steps, from the growth factor's moving average (window_steps), < "
                    "threshold"),
       v1::SEVERITY_WARN,
       "BASIC",
       {-1000.0, 0.0},
       {},
       {.threshold = kVanishingDecades,
        .warmup_steps = 20,
        .for_steps = 100,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kGrowthWindow},
       kAverageWindow},
      {v1::RULE_ID_VANISHING_ABS,
       "VANISHING_ABS",
       "Hardly any gradient in the recurrent weights of a layer.",
       absl::StrCat("root mean square of the entries of a layer's recurrent gradient < threshold; "
                    "resolves above ",
                    Text(kVanishingRmsResolve), " times it"),
       v1::SEVERITY_WARN,
       "BASIC",
       {0.0, 1.0},
       {},
       {.threshold = kVanishingRms,
        .warmup_steps = 20,
        .for_steps = 50,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_DEAD_LAYER,
       "DEAD_LAYER",
       "A recurrent layer, the read-out or the embedding gets no gradient.",
       "its share of norm_before < threshold; or the share of exact zeros in each of its tensors > "
       "second_threshold",
       v1::SEVERITY_WARN,
       "BASIC",
       {0.0, 0.1},
       {0.0, 1.0},
       {.threshold = kDeadNormShare,
        .second_threshold = kDeadZeroShare,
        .warmup_steps = 20,
        .for_steps = 100,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_CLIP_SATURATED,
       "CLIP_SATURATED",
       "Nearly every step is clipped, and hard; WARN when the loss stands still, too.",
       "share of the last window_steps steps that were clipped > threshold, with a median "
       "coefficient < second_threshold",
       v1::SEVERITY_WARN,
       "OFF",
       {0.0, 1.0},
       {0.0, 1.0},
       {.threshold = kClipSaturatedShare,
        .second_threshold = kClipSaturatedCoefficient,
        .warmup_steps = 20,
        .for_steps = 200,
        .resolve_steps = 100,
        .cooldown_steps = 100,
        .window_steps = kClipWindow},
       kStepsWindow},
      {v1::RULE_ID_LOSS_PLATEAU,
       "LOSS_PLATEAU",
       "The loss no longer falls; WARN when the reason is known, or where the task is not learnt "
       "at all.",
       absl::StrCat("median of the newer half of the last window_steps losses > threshold x that "
                    "of the older half, or within ",
                    Text(100 * kPlateauNearFloor),
                    " % of what the task gives without memory; and > second_threshold x the first "
                    "loss"),
       v1::SEVERITY_WARN,
       "OFF",
       {0.1, 10.0},
       {0.0, 10.0},
       {.threshold = kPlateauRatio,
        .second_threshold = kPlateauOfFirst,
        .warmup_steps = 20,
        .for_steps = 100,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kPlateauWindow},
       kHalvesWindow},
      {v1::RULE_ID_GATES_STUCK,
       "GATES_STUCK",
       "Gates of a layer stay closed: those that keep the state, or input and output.",
       "share of the values of the forget gate (LSTM) or update gate (GRU) below 0.05 > threshold; "
       "or "
       "of both input and output gate (LSTM) > second_threshold",
       v1::SEVERITY_WARN,
       "FULL",
       {0.0, 1.0},
       {0.0, 1.0},
       {.threshold = kGateClosedShare,
        .second_threshold = kGatesClosedShare,
        .warmup_steps = 20,
        .for_steps = 100,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_DEAD_OR_SATURATED_UNITS,
       "DEAD_OR_SATURATED_UNITS",
       "Units of a layer are saturated, or dead (ReLU, from level BASIC on).",
       "share of states beyond 0.99, or with ReLU share of units that are 0 for a whole batch, > "
       "threshold; or, but for ReLU, activation_slope < second_threshold",
       v1::SEVERITY_WARN,
       "FULL",
       {0.0, 1.0},
       {0.0, 0.5},
       {.threshold = kUnitsShare,
        .second_threshold = kSlopeLow,
        .warmup_steps = 20,
        .for_steps = 100,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_UPDATE_RATIO,
       "UPDATE_RATIO",
       "Updates are too large or too small for the weights; CRIT when far too large.",
       absl::StrCat(
           "moving average (window_steps) of the weight matrices' median update_ratio > threshold "
           "(CRIT from ",
           Text(kUpdateRatioCritical), " times that on), or < second_threshold"),
       v1::SEVERITY_CRIT,
       "BASIC",
       {1e-4, 100.0},
       {0.0, 2.5e-5},
       {.threshold = kUpdateRatioHigh,
        .second_threshold = kUpdateRatioLow,
        .warmup_steps = 20,
        .for_steps = 50,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kUpdateRatioWindow},
       kAverageWindow},
      {v1::RULE_ID_HIDDEN_GROWTH,
       "HIDDEN_GROWTH",
       "Hidden or cell states surge along the sequence.",
       absl::StrCat("slope of ln RMS over the second half of T time steps > the larger of "
                    "threshold and ",
                    Text(kSurgeSlopeTimesT), " / T, with an RMS above ", Text(kSurgeRmsFloor),
                    " at the end; or a state above second_threshold"),
       v1::SEVERITY_WARN,
       "FULL",
       {0.0, 10.0},
       {0.0, 1e30},
       {.threshold = kSurgeSlope,
        .second_threshold = kSurgeLargest,
        .for_steps = 5,
        .resolve_steps = 20,
        .cooldown_steps = 100}},
      {v1::RULE_ID_WEIGHT_BLOWUP,
       "WEIGHT_BLOWUP",
       "A weight matrix grows without bound.",
       absl::StrCat("norm over that at the start > threshold, or over that of the step before > "
                    "second_threshold, where it is above that of PyTorch's initial weights; or "
                    "sigma_max of a recurrent layer > ",
                    Text(kSigmaOverFirst), " x the first (diagnostics.recurrent_every_steps)"),
       v1::SEVERITY_WARN,
       "BASIC",
       {1.0, 1e6},
       {1.0, 1e6},
       {.threshold = kWeightOverFirst,
        .second_threshold = kWeightOverPrevious,
        .warmup_steps = 20,
        .for_steps = 10,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_OSCILLATION,
       "OSCILLATION",
       "Successive gradients point against each other: the steps are too large.",
       absl::StrCat("moving average (window_steps) of gradient_cosine < threshold "
                    "(diagnostics.compare_steps), unless the loss is below ",
                    Text(100 * kLearntPart), " % of the first or falls"),
       v1::SEVERITY_INFO,
       "BASIC",
       {-1.0, 0.0},
       {},
       {.threshold = kCosineLow,
        .warmup_steps = 20,
        .for_steps = 50,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kCosineWindow},
       kAverageWindow},
      {v1::RULE_ID_STALLED_JOB,
       "STALLED_JOB",
       "A running job finishes no step.",
       "seconds since a step ended > threshold; resolves with the next step",
       v1::SEVERITY_WARN,
       "OFF",
       {1.0, 1e6},
       {},
       {.threshold = kStallSeconds, .for_steps = 1, .resolve_steps = 1}},
      {v1::RULE_ID_CLIP_TOO_LOOSE,
       "CLIP_TOO_LOOSE",
       "The clip threshold hardly ever acts while the gradient explodes or spikes, or the loss "
       "stands still.",
       absl::StrCat("share of the last window_steps steps that were clipped < threshold, and "
                    "within these steps EXPLODING_ABS or LOSS_DIVERGENCE fired, or "
                    "second_threshold norms in 100 stood out unclipped, or LOSS_PLATEAU fires and "
                    "p99 of the norms (as many as EXPLODING_REL compares with) is > ",
                    Text(kClipLooseTail), " x p50, or the threshold > ", Text(kClipLooseIdle),
                    " x p50 and no gradient vanishes; or a threshold > ",
                    Text(kClipLooseOverMedian),
                    " x the median norm while one of these rules fired"),
       v1::SEVERITY_WARN,
       "OFF",
       {0.0, 0.2},
       {0.0, 100.0},
       {.threshold = kClipLooseShare,
        .second_threshold = kClipLooseSpikesPer100,
        .warmup_steps = kClipLooseSamplesMin,
        .for_steps = 1,
        .resolve_steps = 100,
        .cooldown_steps = 100,
        .window_steps = kClipWindow},
       kStepsWindow},
      {v1::RULE_ID_UPDATE_SPIKE,
       "UPDATE_SPIKE",
       "Early warning: updates far above their own recent past, for the learning rate in force.",
       absl::StrCat(
           kUpdateSpikesNeeded, " of the last ", kSpikeWindow,
           " steps with update_norm / learning_rate > threshold x median and a robust z of "
           "its logarithm > second_threshold, against the window_steps before; from ",
           kSpikeSamplesMin, " on (half the window, if that is less), unless the loss is below ",
           Text(100 * kLearntPart), " % of the first or falls fast"),
       v1::SEVERITY_INFO,
       "BASIC",
       {1.0, 1e6},
       {0.0, 1000.0},
       {.threshold = kUpdateOverMedian,
        .second_threshold = kUpdateZ,
        .warmup_steps = 20,
        .for_steps = 1,
        .resolve_steps = 50,
        .cooldown_steps = 100,
        .window_steps = kSpikePast},
       kPastWindow},
  };
}

const std::vector<Row>& Table() {
  static const auto* const rows = new std::vector<Row>(Rows());
  return *rows;
}

const Row* FindRow(v1::RuleId id) {
  for (const Row& row : Table()) {
    if (row.id == id) return &row;
  }
  return nullptr;
}

v1::Rule ToRule(const Row& row) {
  v1::Rule rule;
  rule.set_id(row.id);
  rule.set_name(row.name);
  rule.set_description(row.description);
  rule.set_condition(row.condition);
  rule.set_severity(row.severity);
  rule.set_statistics_level(row.statistics_level);
  v1::RuleSettings& defaults = *rule.mutable_defaults();
  defaults.set_id(row.id);
  defaults.set_disabled(row.defaults.disabled);
  if (row.has_threshold()) defaults.set_threshold(row.defaults.threshold);
  if (row.has_second_threshold()) defaults.set_second_threshold(row.defaults.second_threshold);
  defaults.set_warmup_steps(row.defaults.warmup_steps);
  defaults.set_for_steps(row.defaults.for_steps);
  defaults.set_resolve_steps(row.defaults.resolve_steps);
  defaults.set_cooldown_steps(row.defaults.cooldown_steps);
  if (row.has_window()) defaults.set_window_steps(row.defaults.window_steps);
  return rule;
}

// R1, R2 and R17 are never muted: each hit after a resolve is an alert of its own.
bool HasCooldown(v1::RuleId id) {
  return id != v1::RULE_ID_NON_FINITE && id != v1::RULE_ID_EXPLODING_ABS &&
         id != v1::RULE_ID_STALLED_JOB;
}

// Checks one entry.
class EntryCheck {
 public:
  EntryCheck(const v1::RuleSettings& entry, std::string path,
             std::vector<SettingsProblem>* problems)
      : entry_(entry), path_(std::move(path)), problems_(problems) {}

  void Run() {
    const Row* row = FindRow(entry_.id());
    if (row == nullptr) {
      Add("id", absl::StrCat(static_cast<int>(entry_.id()),
                             " is no rule; ListRules names those that there are"));
    } else {
      if (entry_.has_threshold()) {
        CheckThreshold("threshold", entry_.threshold(), *row, row->range);
      }
      if (entry_.has_second_threshold()) {
        CheckThreshold("second_threshold", entry_.second_threshold(), *row, row->second_range);
      }
      if (entry_.cooldown_steps() > 0 && !HasCooldown(row->id)) {
        Add("cooldown_steps",
            absl::StrCat(entry_.cooldown_steps(), " is not 0; ", row->name, " is never muted"));
      }
      if (entry_.has_window_steps()) CheckWindow(*row);
    }
    if (!v1::Severity_IsValid(entry_.severity())) {
      Add("severity", absl::StrCat(static_cast<int>(entry_.severity()), " is no severity"));
    }
    if (entry_.has_warmup_steps()) CheckSteps("warmup_steps", entry_.warmup_steps(), 0, kStepsMax);
    if (entry_.has_for_steps()) CheckSteps("for_steps", entry_.for_steps(), 1, kStepsMax);
    if (entry_.has_resolve_steps()) {
      CheckSteps("resolve_steps", entry_.resolve_steps(), 1, kStepsMax);
    }
    if (entry_.has_cooldown_steps()) {
      CheckSteps("cooldown_steps", entry_.cooldown_steps(), 0, kStepsMax);
    }
  }

 private:
  void Add(absl::string_view field, std::string description) {
    problems_->push_back({absl::StrCat(path_, ".", field), std::move(description)});
  }

  void CheckThreshold(absl::string_view field, double threshold, const Row& row, Range range) {
    if (!(range.low < range.high)) {
      Add(field, absl::StrCat(row.name, " has no ", field));
    } else if (!(threshold > range.low && threshold < range.high)) {
      Add(field, absl::StrCat(Text(threshold), " is not between ", Text(range.low), " and ",
                              Text(range.high), " (both left out)"));
    }
  }

  void CheckWindow(const Row& row) {
    if (row.has_window()) {
      CheckSteps("window_steps", entry_.window_steps(), row.window.low, row.window.high);
    } else {
      Add("window_steps", absl::StrCat(entry_.window_steps(), ": ", row.name,
                                       " has no window_steps; it judges each step by itself"));
    }
  }

  void CheckSteps(absl::string_view field, int64_t steps, int64_t low, int64_t high) {
    if (steps >= low && steps <= high) return;
    Add(field, absl::StrCat(steps, " is not between ", low, " and ", high));
  }

  const v1::RuleSettings& entry_;
  const std::string path_;
  std::vector<SettingsProblem>* const problems_;
};

}  // namespace

const std::vector<v1::Rule>& RuleCatalogue() {
  static const auto* const rules = [] {
    auto* list = new std::vector<v1::Rule>();
    for (const Row& row : Table()) list->push_back(ToRule(row));
    return list;
  }();
  return *rules;
}

void CheckRuleSettings(const google::protobuf::RepeatedPtrField<v1::RuleSettings>& settings,
                       absl::string_view field, std::vector<SettingsProblem>* problems) {
  std::set<v1::RuleId> seen;
  for (int i = 0; i < settings.size(); ++i) {
    const std::string path = absl::StrCat(field, "[", i, "]");
    EntryCheck(settings[i], path, problems).Run();
    if (!seen.insert(settings[i].id()).second) {
      problems->push_back({absl::StrCat(path, ".id"),
                           "this rule has settings already; name each rule at most once"});
    }
  }
}

Settings SettingsOf(v1::RuleId id,
                    const google::protobuf::RepeatedPtrField<v1::RuleSettings>& overrides) {
  const Row* row = FindRow(id);
  if (row == nullptr) return {.disabled = true};
  Settings settings = row->defaults;
  for (const v1::RuleSettings& entry : overrides) {
    if (entry.id() != id) continue;
    if (entry.has_disabled()) settings.disabled = entry.disabled();
    if (entry.has_threshold()) settings.threshold = entry.threshold();
    if (entry.has_second_threshold()) settings.second_threshold = entry.second_threshold();
    if (entry.severity() != v1::SEVERITY_UNSPECIFIED) settings.severity = entry.severity();
    if (entry.has_warmup_steps()) settings.warmup_steps = entry.warmup_steps();
    if (entry.has_for_steps()) settings.for_steps = entry.for_steps();
    if (entry.has_resolve_steps()) settings.resolve_steps = entry.resolve_steps();
    if (entry.has_cooldown_steps()) settings.cooldown_steps = entry.cooldown_steps();
    if (entry.has_window_steps()) settings.window_steps = entry.window_steps();
  }
  return settings;
}

Windows WindowsOf(const google::protobuf::RepeatedPtrField<v1::RuleSettings>& overrides) {
  const auto of = [&overrides](v1::RuleId id) {
    return static_cast<int>(SettingsOf(id, overrides).window_steps);
  };
  return {.loss_divergence = of(v1::RULE_ID_LOSS_DIVERGENCE),
          .exploding_rel = of(v1::RULE_ID_EXPLODING_REL),
          .recurrent_expansion = of(v1::RULE_ID_RECURRENT_EXPANSION),
          .vanishing_through_time = of(v1::RULE_ID_VANISHING_THROUGH_TIME),
          .clip_saturated = of(v1::RULE_ID_CLIP_SATURATED),
          .loss_plateau = of(v1::RULE_ID_LOSS_PLATEAU),
          .update_ratio = of(v1::RULE_ID_UPDATE_RATIO),
          .oscillation = of(v1::RULE_ID_OSCILLATION),
          .clip_too_loose = of(v1::RULE_ID_CLIP_TOO_LOOSE),
          .update_spike = of(v1::RULE_ID_UPDATE_SPIKE)};
}

}  // namespace gradwatch::alerts
