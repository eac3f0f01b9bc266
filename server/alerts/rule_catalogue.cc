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
  bool has_threshold;
  Range range;
  Settings defaults;
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
       false,
       {},
       {.threshold = kNonFiniteSteps, .for_steps = 1, .resolve_steps = 20}},
      {v1::RULE_ID_EXPLODING_ABS,
       "EXPLODING_ABS",
       "The gradient norm before clipping passed a limit; WARN when the job clips, else CRIT.",
       absl::StrCat("norm_before > threshold; resolves below ", Text(kNormResolvePart), " of it"),
       v1::SEVERITY_CRIT,
       "OFF",
       true,
       {0.0, 1e30},
       {.threshold = kNormLimit, .for_steps = 1, .resolve_steps = 50}},
      {v1::RULE_ID_LOSS_DIVERGENCE,
       "LOSS_DIVERGENCE",
       "The loss runs away; WARN for a relapse below the first loss, else CRIT.",
       absl::StrCat("loss > threshold x first finite loss; or its moving average > ",
                    Text(kEmaOverBest), " x the larger of its best and ",
                    Text(100 * kBestFloorPart), " % of the first loss, ", kEmaForFactor,
                    " times as long"),
       v1::SEVERITY_CRIT,
       "OFF",
       true,
       {1.0, 1e6},
       {.threshold = kLossOverFirst,
        .warmup_steps = 1,
        .for_steps = 2,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_EXPLODING_REL,
       "EXPLODING_REL",
       "The gradient norm is far above its own recent past, again and again.",
       absl::StrCat(kSpikesNeeded, " of the last ", kSpikeWindow,
                    " steps with robust z of ln norm_before > threshold and norm_before > ",
                    Text(kNormOverMedian), " x median, against the 128 norms before; from ",
                    kNormSamplesMin, " norms on"),
       v1::SEVERITY_WARN,
       "OFF",
       true,
       {0.0, 1000.0},
       {.threshold = kNormZ,
        .warmup_steps = 20,
        .for_steps = 1,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_RECURRENT_EXPANSION,
       "RECURRENT_EXPANSION",
       "The gradient grows backwards through time: an explosion is likely.",
       absl::StrCat("moving average of the growth factor > threshold, or more than ",
                    Text(kExpansionDecades), " decades over the back-propagated length"),
       v1::SEVERITY_WARN,
       "BASIC",
       true,
       {1.0, 10.0},
       {.threshold = kGrowthLimit,
        .warmup_steps = 20,
        .for_steps = 20,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_VANISHING_THROUGH_TIME,
       "VANISHING_THROUGH_TIME",
       "The gradient fades before it reaches the start of the sequence.",
       absl::StrCat("decades over a back-propagated length of at least ", kVanishingWindowMin,
                    " time steps, from the growth factor's moving average, < threshold"),
       v1::SEVERITY_INFO,
       "BASIC",
       true,
       {-1000.0, 0.0},
       {.threshold = kVanishingDecades,
        .warmup_steps = 20,
        .for_steps = 100,
        .resolve_steps = 50,
        .cooldown_steps = 100}},
      {v1::RULE_ID_HIDDEN_GROWTH,
       "HIDDEN_GROWTH",
       "Hidden or cell states surge along the sequence.",
       absl::StrCat("slope of ln RMS over the second half of T time steps > the larger of "
                    "threshold and ",
                    Text(kSurgeSlopeTimesT), " / T, with an RMS above ", Text(kSurgeRmsFloor),
                    " at the end; or a state above ", Text(kSurgeLargest)),
       v1::SEVERITY_WARN,
       "FULL",
       true,
       {0.0, 10.0},
       {.threshold = kSurgeSlope, .for_steps = 5, .resolve_steps = 20, .cooldown_steps = 100}},
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
  if (row.has_threshold) defaults.set_threshold(row.defaults.threshold);
  defaults.set_warmup_steps(row.defaults.warmup_steps);
  defaults.set_for_steps(row.defaults.for_steps);
  defaults.set_resolve_steps(row.defaults.resolve_steps);
  defaults.set_cooldown_steps(row.defaults.cooldown_steps);
  return rule;
}

// R1 and R2 are never muted: each hit after a resolve is an alert of its own.
bool HasCooldown(v1::RuleId id) {
  return id != v1::RULE_ID_NON_FINITE && id != v1::RULE_ID_EXPLODING_ABS;
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
      CheckThreshold(*row);
      if (entry_.cooldown_steps() > 0 && !HasCooldown(row->id)) {
        Add("cooldown_steps",
            absl::StrCat(entry_.cooldown_steps(), " is not 0; ", row->name, " is never muted"));
      }
    }
    if (entry_.has_warmup_steps()) CheckSteps("warmup_steps", entry_.warmup_steps(), 0);
    if (entry_.has_for_steps()) CheckSteps("for_steps", entry_.for_steps(), 1);
    if (entry_.has_resolve_steps()) CheckSteps("resolve_steps", entry_.resolve_steps(), 1);
    if (entry_.has_cooldown_steps()) CheckSteps("cooldown_steps", entry_.cooldown_steps(), 0);
  }

 private:
  void Add(absl::string_view field, std::string description) {
    problems_->push_back({absl::StrCat(path_, ".", field), std::move(description)});
  }

  void CheckThreshold(const Row& row) {
    if (!entry_.has_threshold()) return;
    const double threshold = entry_.threshold();
    if (!row.has_threshold) {
      Add("threshold", absl::StrCat(row.name, " has no threshold"));
    } else if (!(threshold > row.range.low && threshold < row.range.high)) {
      Add("threshold", absl::StrCat(Text(threshold), " is not between ", Text(row.range.low),
                                    " and ", Text(row.range.high), " (both left out)"));
    }
  }

  void CheckSteps(absl::string_view field, int64_t steps, int64_t low) {
    if (steps >= low && steps <= kStepsMax) return;
    Add(field, absl::StrCat(steps, " is not between ", low, " and ", kStepsMax));
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
    if (entry.has_warmup_steps()) settings.warmup_steps = entry.warmup_steps();
    if (entry.has_for_steps()) settings.for_steps = entry.for_steps();
    if (entry.has_resolve_steps()) settings.resolve_steps = entry.resolve_steps();
    if (entry.has_cooldown_steps()) settings.cooldown_steps = entry.cooldown_steps();
  }
  return settings;
}

}  // namespace gradwatch::alerts
