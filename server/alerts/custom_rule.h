#ifndef GRADWATCH_SERVER_ALERTS_CUSTOM_RULE_H_
#define GRADWATCH_SERVER_ALERTS_CUSTOM_RULE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/layout.h"
#include "server/alerts/rule_catalogue.h"
#include "server/alerts/rules.h"
#include "server/stats/estimators.h"
#include "server/stats/state_bytes.h"

// Rules that a job brings along: see v1.CustomRule for what they can say.
namespace gradwatch::alerts {

constexpr int kCustomRulesMax = 16;

// A number that steps have; defined in custom_rule.cc.
struct Statistic;

// What an expression says.
struct Expression {
  enum class Operator { kGreater, kGreaterOrEqual, kLess, kLessOrEqual };
  enum class Baseline { kNone, kMedian, kAverage, kFirst, kMin, kMax };

  const Statistic* statistic = nullptr;
  std::string selector;  // Empty: all.
  int selector_column = 0;
  Operator comparison = Operator::kGreater;
  double number = 0.0;
  Baseline baseline = Baseline::kNone;
  int64_t for_steps = 1;
  int64_t resolve_steps = 1;

  bool smaller_is_worse() const {
    return comparison == Operator::kLess || comparison == Operator::kLessOrEqual;
  }
};

// INVALID_ARGUMENT with a message that begins "column N: ", from 1.
absl::StatusOr<Expression> ParseExpression(absl::string_view text);

// Appends what is wrong with the job's custom rules: too many, names, expressions, statistics that
// the job does not record, selectors that select nothing, steps out of range, texts too long.
// `field` is the path of the rules.
void CheckCustomRules(const v1::Job& job, absl::string_view field,
                      std::vector<SettingsProblem>* problems);

Settings SettingsOf(const v1::CustomRule& rule, const Expression& expression);

// A custom rule at work in one job: its condition, and the past that it compares with. One thread
// at a time; copies are independent.
class CustomCondition {
 public:
  // `rule` passed CheckCustomRules with `job`.
  CustomCondition(const v1::CustomRule& rule, const v1::Job& job);

  const v1::CustomRule& rule() const { return rule_; }
  const Settings& settings() const { return settings_; }

  // Takes in a finite step.
  Observation Observe(const v1::StepStats& stats, const Layout& layout);
  // Of the last observation, which held.
  Description Describe(const v1::StepStats& stats) const;

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  // The most extreme value among what is selected, and where.
  struct Measured {
    double value;
    int index;
  };
  std::optional<Measured> Measure(const v1::StepStats& stats, const Layout& layout) const;
  std::optional<double> Limit() const;
  void Remember(double value);

  // Constant after construction.
  v1::CustomRule rule_;
  Expression expression_;
  Settings settings_;
  std::vector<int> selected_;       // Tensors or layers; one 0 for a number of the step.
  std::vector<std::string> names_;  // Of `selected_`.

  stats::Window recent_;
  stats::Ema average_;
  std::optional<double> first_;
  double min_ = 0.0;
  double max_ = 0.0;
  Measured latest_ = {0.0, 0};
  double limit_ = 0.0;  // At the latest observation.
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_CUSTOM_RULE_H_
