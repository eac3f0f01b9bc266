#include "server/alerts/custom_rule.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "server/alerts/advice.h"

namespace gradwatch::alerts {

// --- What there is to compare.

struct Statistic {
  enum class Of { kStep, kTensor, kLayer };

  const char* name;
  Of of;
  v1::StatisticsLevel level;  // From which on it is recorded.
  // Of tensor or layer `i`; nothing when the step does not have it.
  std::optional<double> (*value)(const v1::StepStats& stats, const Layout& layout, int i);
  // What the job's diagnostics must ask for.
  enum class Needs { kNothing, kCompareSteps, kRecurrent, kNoise } needs = Needs::kNothing;
};

namespace {

using Of = Statistic::Of;
using Needs = Statistic::Needs;
using Maybe = std::optional<double>;
using Stats = v1::StepStats;

constexpr v1::StatisticsLevel kOff = v1::STATISTICS_LEVEL_OFF;
constexpr v1::StatisticsLevel kBasic = v1::STATISTICS_LEVEL_BASIC;
constexpr v1::StatisticsLevel kFull = v1::STATISTICS_LEVEL_FULL;

constexpr int64_t kCustomStepsMax = 1'000'000;
constexpr size_t kExpressionMax = 200;
constexpr size_t kNameMax = 40;
constexpr size_t kAdviceMax = 500;
constexpr int64_t kWarmupDefault = 20;
constexpr int64_t kCooldownDefault = 100;
constexpr int kBaselineWindow = 128;
constexpr int kBaselineSamplesMin = 16;
constexpr double kAverageBeta = 0.98;

Maybe If(bool present, double value) { return present ? Maybe(value) : std::nullopt; }

const Statistic kStatistics[] = {
    {"loss", Of::kStep, kOff, [](const Stats& s, const Layout&, int) -> Maybe { return s.loss(); }},
    {"learning_rate", Of::kStep, kOff,
     [](const Stats& s, const Layout&, int) -> Maybe { return s.learning_rate(); }},
    {"norm_before", Of::kStep, kOff,
     [](const Stats& s, const Layout&, int) -> Maybe { return s.norm_before(); }},
    {"norm_after", Of::kStep, kOff,
     [](const Stats& s, const Layout&, int) { return If(s.has_norm_after(), s.norm_after()); }},
    {"clip_coefficient", Of::kStep, kOff,
     [](const Stats& s, const Layout&, int) {
       return If(s.has_clip_coefficient(), s.clip_coefficient());
     }},
    {"duration_us", Of::kStep, kOff,
     [](const Stats& s, const Layout&, int) -> Maybe {
       return static_cast<double>(s.duration_us());
     }},
    {"update_norm", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) { return If(s.has_update_norm(), s.update_norm()); }},
    {"update_ratio", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) { return If(s.has_update_ratio(), s.update_ratio()); }},
    {"gradient_cosine", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.has_gradient_cosine(), s.gradient_cosine());
     },
     Needs::kCompareSteps},
    {"distance_ratio", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.has_distance_ratio(), s.distance_ratio());
     },
     Needs::kCompareSteps},
    {"step_curvature", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.has_step_curvature(), s.step_curvature());
     },
     Needs::kCompareSteps},
    {"noise_scale", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.noise().has_noise_scale(), s.noise().noise_scale());
     },
     Needs::kNoise},
    {"signal_to_noise", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.has_noise(), s.noise().signal_to_noise());
     },
     Needs::kNoise},
    {"growth_factor", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.has_growth(), s.growth().growth_factor());
     }},
    {"horizon", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) {
       return If(s.growth().has_horizon(), s.growth().horizon());
     }},
    {"decades", Of::kStep, kBasic,
     [](const Stats& s, const Layout&, int) { return If(s.has_growth(), s.growth().decades()); }},
    {"tensor.norm", Of::kTensor, kBasic,
     [](const Stats& s, const Layout&, int i) -> Maybe { return s.tensors(i).norm(); }},
    {"tensor.max_abs", Of::kTensor, kBasic,
     [](const Stats& s, const Layout&, int i) -> Maybe { return s.tensors(i).max_abs(); }},
    {"tensor.zero_share", Of::kTensor, kBasic,
     [](const Stats& s, const Layout& layout, int i) -> Maybe {
       return static_cast<double>(s.tensors(i).zeros()) / layout.entries[static_cast<size_t>(i)];
     }},
    {"tensor.weight_norm", Of::kTensor, kBasic,
     [](const Stats& s, const Layout&, int i) -> Maybe { return s.tensors(i).weight_norm(); }},
    {"tensor.update_ratio", Of::kTensor, kBasic,
     [](const Stats& s, const Layout&, int i) {
       return If(s.tensors(i).has_update_ratio(), s.tensors(i).update_ratio());
     }},
    {"tensor.gradient_cosine", Of::kTensor, kBasic,
     [](const Stats& s, const Layout&, int i) {
       return If(s.tensors(i).has_gradient_cosine(), s.tensors(i).gradient_cosine());
     },
     Needs::kCompareSteps},
    {"layer.growth_factor", Of::kLayer, kBasic,
     [](const Stats& s, const Layout&, int i) {
       const bool present = i < s.growth().layer_growth_factors_size();
       return present ? Maybe(s.growth().layer_growth_factors(i)) : std::nullopt;
     }},
    {"layer.saturated_share", Of::kLayer, kFull,
     [](const Stats& s, const Layout&, int i) {
       return i < s.layers_size() ? Maybe(s.layers(i).saturated_share()) : std::nullopt;
     }},
    {"layer.activation_slope", Of::kLayer, kFull,
     [](const Stats& s, const Layout&, int i) {
       const bool present = i < s.layers_size() && s.layers(i).has_activation_slope();
       return present ? Maybe(s.layers(i).activation_slope()) : std::nullopt;
     }},
    {"layer.state_similarity", Of::kLayer, kFull,
     [](const Stats& s, const Layout&, int i) {
       const bool present = i < s.layers_size() && s.layers(i).has_state_similarity();
       return present ? Maybe(s.layers(i).state_similarity()) : std::nullopt;
     }},
    {"layer.keep_time_constant", Of::kLayer, kFull,
     [](const Stats& s, const Layout&, int i) {
       const bool present = i < s.layers_size() && s.layers(i).has_keep_time_constant();
       return present ? Maybe(s.layers(i).keep_time_constant()) : std::nullopt;
     }},
    {"layer.sigma_max", Of::kLayer, kBasic,
     [](const Stats& s, const Layout&, int i) -> Maybe {
       if (i >= s.recurrent_size() || s.recurrent(i).sigma_max().empty()) return std::nullopt;
       const auto& sigmas = s.recurrent(i).sigma_max();
       return *std::max_element(sigmas.begin(), sigmas.end());
     },
     Needs::kRecurrent},
    {"layer.hidden_max_abs", Of::kLayer, kFull,
     [](const Stats& s, const Layout&, int i) {
       return i < s.layers_size() ? Maybe(s.layers(i).hidden_max_abs()) : std::nullopt;
     }},
    {"layer.hidden_rms", Of::kLayer, kFull,
     [](const Stats& s, const Layout&, int i) -> Maybe {
       if (i >= s.layers_size() || s.layers(i).hidden_rms().empty()) return std::nullopt;
       return *s.layers(i).hidden_rms().rbegin();
     }},
};

const Statistic* FindStatistic(absl::string_view name) {
  for (const Statistic& statistic : kStatistics) {
    if (name == statistic.name) return &statistic;
  }
  return nullptr;
}

std::string StatisticNames() {
  return absl::StrJoin(kStatistics, ", ", [](std::string* out, const Statistic& statistic) {
    absl::StrAppend(out, statistic.name);
  });
}

// --- Reading an expression.

constexpr const char* kBaselines[] = {"median", "average", "first", "min", "max"};

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<Expression> Parse() {
    Expression expression;
    const bool good = ParseStatistic(&expression) && ParseSelector(&expression) &&
                      ParseOperator(&expression) && ParseNumber(&expression) &&
                      ParseBaseline(&expression) && ParseSteps("for", &expression.for_steps) &&
                      ParseSteps("resolve", &expression.resolve_steps) && ParseEnd();
    if (!good) return absl::InvalidArgumentError(error_);
    return expression;
  }

 private:
  static bool IsWord(char c) { return absl::ascii_isalnum(c) || c == '_' || c == '.'; }

  void SkipSpace() {
    while (at_ < text_.size() && absl::ascii_isspace(text_[at_])) ++at_;
  }

  // The word or number that comes next, without taking it.
  absl::string_view Peek() {
    SkipSpace();
    size_t end = at_;
    while (end < text_.size() && IsWord(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }

  bool Fail(absl::string_view wants) {
    const absl::string_view rest = text_.substr(std::min(at_, text_.size()), 20);
    error_ = absl::StrCat("column ", at_ + 1, ": ", wants, ", not ",
                          rest.empty() ? "the end" : absl::StrCat("'", rest, "'"));
    return false;
  }

  bool Take(absl::string_view symbol) {
    SkipSpace();
    if (!absl::StartsWith(text_.substr(at_), symbol)) return false;
    at_ += symbol.size();
    return true;
  }

  bool ParseStatistic(Expression* expression) {
    const absl::string_view word = Peek();
    expression->statistic = FindStatistic(word);
    if (expression->statistic == nullptr) {
      return Fail(absl::StrCat("wants a statistic (", StatisticNames(), ")"));
    }
    at_ += word.size();
    return true;
  }

  bool ParseSelector(Expression* expression) {
    if (!Take("[")) return true;
    SkipSpace();
    if (expression->statistic->of == Of::kStep) {
      return Fail(absl::StrCat(expression->statistic->name, " has no selector: wants no '['"));
    }
    expression->selector_column = static_cast<int>(at_) + 1;
    const size_t end = text_.find(']', at_);
    if (end == absl::string_view::npos) return Fail("wants a selector and ']'");
    const absl::string_view selector =
        absl::StripTrailingAsciiWhitespace(text_.substr(at_, end - at_));
    const bool good =
        !selector.empty() &&
        std::all_of(selector.begin(), selector.end(), [](char c) { return IsWord(c) || c == '*'; });
    if (!good) return Fail("wants letters, digits, '_', '.' and '*' before ']'");
    expression->selector = std::string(selector);
    at_ = end + 1;
    return true;
  }

  bool ParseOperator(Expression* expression) {
    using Operator = Expression::Operator;
    if (Take(">=")) {
      expression->comparison = Operator::kGreaterOrEqual;
    } else if (Take("<=")) {
      expression->comparison = Operator::kLessOrEqual;
    } else if (Take(">")) {
      expression->comparison = Operator::kGreater;
    } else if (Take("<")) {
      expression->comparison = Operator::kLess;
    } else {
      return Fail("wants >, >=, < or <=");
    }
    return true;
  }

  bool ParseNumber(Expression* expression) {
    SkipSpace();
    size_t end = at_;
    const auto is_part = [this](size_t i) {
      const char c = text_[i];
      const bool sign = c == '-' || c == '+';
      return absl::ascii_isdigit(c) || c == '.' || c == 'e' || c == 'E' || sign;
    };
    while (end < text_.size() && is_part(end)) ++end;
    const absl::string_view digits = text_.substr(at_, end - at_);
    if (!absl::SimpleAtod(digits, &expression->number) || !std::isfinite(expression->number)) {
      return Fail("wants a finite number");
    }
    at_ = end;
    return true;
  }

  bool ParseBaseline(Expression* expression) {
    if (!Take("*")) return true;
    const absl::string_view word = Peek();
    for (size_t i = 0; i < std::size(kBaselines); ++i) {
      if (word != kBaselines[i]) continue;
      expression->baseline = static_cast<Expression::Baseline>(i + 1);
      at_ += word.size();
      return true;
    }
    return Fail(absl::StrCat("wants a baseline (", absl::StrJoin(kBaselines, ", "), ")"));
  }

  bool ParseSteps(absl::string_view keyword, int64_t* steps) {
    if (Peek() != keyword) return true;
    at_ += keyword.size();
    const absl::string_view digits = Peek();
    if (!absl::SimpleAtoi(digits, steps) || *steps < 1 || *steps > kCustomStepsMax) {
      return Fail(absl::StrCat("wants a number of steps, 1 to ", kCustomStepsMax));
    }
    at_ += digits.size();
    return true;
  }

  bool ParseEnd() {
    SkipSpace();
    return at_ == text_.size() || Fail("wants 'for', 'resolve' (in this order) or the end");
  }

  const absl::string_view text_;
  size_t at_ = 0;
  std::string error_;
};

// --- Selecting.

// Whether `text` is `pattern`, in which * is any text. Steps back to the latest * only, so it takes
// at most the product of both lengths.
bool Matches(absl::string_view pattern, absl::string_view text) {
  size_t p = 0, t = 0;
  size_t star = absl::string_view::npos, after = 0;  // The latest *, and where its text ends.
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++after;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// Those of a job's tensors, in order; before it first runs, those that its model will have.
std::vector<std::string> TensorNames(const v1::Job& job) {
  std::vector<std::string> names;
  for (const v1::ParameterInfo& parameter : job.parameters()) names.push_back(parameter.name());
  if (!names.empty()) return names;
  if (job.model().token_input() == v1::Model::TOKEN_INPUT_EMBEDDING) {
    names.push_back("embedding.weight");
  }
  for (int layer = 0; layer < job.model().layers(); ++layer) {
    for (const char* kind : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}) {
      names.push_back(absl::StrCat("rnn.", kind, "_l", layer));
    }
  }
  names.push_back("readout.weight");
  names.push_back("readout.bias");
  return names;
}

// By number, what a statistic is there for.
std::vector<std::string> Choices(const Statistic& statistic, const v1::Job& job) {
  if (statistic.of == Of::kTensor) return TensorNames(job);
  std::vector<std::string> numbers;
  if (statistic.of == Of::kLayer) {
    for (int layer = 0; layer < job.model().layers(); ++layer) {
      numbers.push_back(absl::StrCat(layer));
    }
  }
  return numbers;
}

bool IsSelected(const Expression& expression, absl::string_view name) {
  return expression.selector.empty() || Matches(expression.selector, name);
}

// --- Checking.

bool IsCustomName(absl::string_view name) {
  if (name.empty() || name.size() > kNameMax || !absl::ascii_isupper(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isupper(c) || absl::ascii_isdigit(c) || c == '_';
  });
}

bool IsBuiltIn(absl::string_view name) {
  const std::vector<v1::Rule>& rules = RuleCatalogue();
  return std::any_of(rules.begin(), rules.end(),
                     [name](const v1::Rule& rule) { return rule.name() == name; });
}

std::string CheckName(const v1::CustomRule& rule) {
  if (!IsCustomName(rule.name())) {
    return absl::StrCat("'", rule.name().substr(0, 2 * kNameMax),
                        "' is not a name; allowed: [A-Z][A-Z0-9_]{0,", kNameMax - 1, "}");
  }
  if (IsBuiltIn(rule.name())) {
    return absl::StrCat(rule.name(), " is a built-in rule; choose another name");
  }
  return "";
}

// What the statistic needs and the job does not ask for; null for nothing.
const char* MissingDiagnostic(const Statistic& statistic, const v1::Diagnostics& diagnostics) {
  if (statistic.needs == Needs::kCompareSteps && !diagnostics.compare_steps()) {
    return "diagnostics.compare_steps";
  }
  if (statistic.needs == Needs::kRecurrent && diagnostics.recurrent_every_steps() == 0) {
    return "diagnostics.recurrent_every_steps";
  }
  if (statistic.needs == Needs::kNoise && diagnostics.noise_every_steps() == 0) {
    return "diagnostics.noise_every_steps";
  }
  return nullptr;
}

std::string CheckExpression(const v1::CustomRule& rule, const v1::Job& job) {
  if (rule.expression().size() > kExpressionMax) {
    return absl::StrCat("has ", rule.expression().size(), " characters; at most ", kExpressionMax,
                        " are allowed");
  }
  const absl::StatusOr<Expression> expression = ParseExpression(rule.expression());
  if (!expression.ok()) return std::string(expression.status().message());
  const Statistic& statistic = *expression->statistic;
  if (job.statistics_level() < statistic.level) {
    return absl::StrCat("column 1: ", statistic.name, " is recorded from ",
                        v1::StatisticsLevel_Name(statistic.level), " on; the job has ",
                        v1::StatisticsLevel_Name(job.statistics_level()));
  }
  const char* const needed = MissingDiagnostic(statistic, job.diagnostics());
  if (needed != nullptr) {
    return absl::StrCat("column 1: ", statistic.name, " is recorded only with ", needed);
  }
  if (statistic.of == Of::kStep) return "";
  const std::vector<std::string> choices = Choices(statistic, job);
  const bool any = std::any_of(choices.begin(), choices.end(), [&](const std::string& name) {
    return IsSelected(*expression, name);
  });
  if (any) return "";
  return absl::StrCat("column ", expression->selector_column, ": ", expression->selector,
                      " selects nothing; there are ", absl::StrJoin(choices, ", "));
}

void CheckSteps(int64_t steps, absl::string_view field, std::vector<SettingsProblem>* problems) {
  if (steps >= 0 && steps <= kCustomStepsMax) return;
  problems->push_back(
      {std::string(field), absl::StrCat(steps, " is not between 0 and ", kCustomStepsMax)});
}

}  // namespace

absl::StatusOr<Expression> ParseExpression(absl::string_view text) { return Parser(text).Parse(); }

void CheckCustomRules(const v1::Job& job, absl::string_view field,
                      std::vector<SettingsProblem>* problems) {
  if (job.custom_rules_size() > kCustomRulesMax) {
    problems->push_back(
        {std::string(field), absl::StrCat(job.custom_rules_size(), " rules; at most ",
                                          kCustomRulesMax, " are allowed")});
    return;
  }
  std::set<std::string> names;
  for (int i = 0; i < job.custom_rules_size(); ++i) {
    const v1::CustomRule& rule = job.custom_rules(i);
    const std::string path = absl::StrCat(field, "[", i, "]");
    const auto add = [&](const char* name, std::string text) {
      if (!text.empty()) problems->push_back({absl::StrCat(path, ".", name), std::move(text)});
    };
    add("name", CheckName(rule));
    if (!names.insert(rule.name()).second) {
      add("name", absl::StrCat(rule.name(), " is there already; name each rule once"));
    }
    add("expression", CheckExpression(rule, job));
    if (!v1::Severity_IsValid(rule.severity())) {
      add("severity", absl::StrCat(static_cast<int>(rule.severity()), " is no severity"));
    }
    CheckSteps(rule.warmup_steps(), absl::StrCat(path, ".warmup_steps"), problems);
    CheckSteps(rule.cooldown_steps(), absl::StrCat(path, ".cooldown_steps"), problems);
    if (rule.advice().size() > kAdviceMax) {
      add("advice", absl::StrCat("has ", rule.advice().size(), " characters; at most ", kAdviceMax,
                                 " are allowed"));
    }
  }
}

Settings SettingsOf(const v1::CustomRule& rule, const Expression& expression) {
  Settings settings;
  settings.threshold = expression.number;
  settings.severity =
      rule.severity() == v1::SEVERITY_UNSPECIFIED ? v1::SEVERITY_WARN : rule.severity();
  settings.warmup_steps = rule.has_warmup_steps() ? rule.warmup_steps() : kWarmupDefault;
  settings.for_steps = expression.for_steps;
  settings.resolve_steps = expression.resolve_steps;
  settings.cooldown_steps = rule.has_cooldown_steps() ? rule.cooldown_steps() : kCooldownDefault;
  return settings;
}

// --- CustomCondition.

CustomCondition::CustomCondition(const v1::CustomRule& rule, const v1::Job& job)
    : rule_(rule),
      expression_(*ParseExpression(rule.expression())),
      settings_(SettingsOf(rule, expression_)),
      recent_(kBaselineWindow),
      average_(kAverageBeta) {
  if (expression_.statistic->of == Of::kStep) {
    selected_.push_back(0);
    names_.emplace_back();
  }
  const std::vector<std::string> choices = Choices(*expression_.statistic, job);
  for (size_t i = 0; i < choices.size(); ++i) {
    if (!IsSelected(expression_, choices[i])) continue;
    selected_.push_back(static_cast<int>(i));
    names_.push_back(expression_.statistic->of == Of::kLayer ? absl::StrCat("h_l", choices[i])
                                                             : choices[i]);
  }
}

std::optional<CustomCondition::Measured> CustomCondition::Measure(const v1::StepStats& stats,
                                                                  const Layout& layout) const {
  const Statistic& statistic = *expression_.statistic;
  std::optional<Measured> extreme;
  for (size_t i = 0; i < selected_.size(); ++i) {
    if (statistic.of == Of::kTensor && selected_[i] >= stats.tensors_size()) continue;
    const Maybe value = statistic.value(stats, layout, selected_[i]);
    if (!value.has_value() || !std::isfinite(*value)) continue;
    const bool better =
        !extreme.has_value() ||
        (expression_.smaller_is_worse() ? *value < extreme->value : *value > extreme->value);
    if (better) extreme = Measured{*value, static_cast<int>(i)};
  }
  return extreme;
}

std::optional<double> CustomCondition::Limit() const {
  const bool enough = average_.count() >= kBaselineSamplesMin;
  double baseline = 1.0;
  switch (expression_.baseline) {
    case Expression::Baseline::kNone:
      return expression_.number;
    case Expression::Baseline::kMedian:
      if (!enough) return std::nullopt;
      baseline = recent_.Quantile(0.5);
      break;
    case Expression::Baseline::kAverage:
      if (!enough) return std::nullopt;
      baseline = average_.value();
      break;
    case Expression::Baseline::kFirst:
      if (!first_.has_value()) return std::nullopt;
      baseline = *first_;
      break;
    case Expression::Baseline::kMin:
      if (!first_.has_value()) return std::nullopt;
      baseline = min_;
      break;
    case Expression::Baseline::kMax:
      if (!first_.has_value()) return std::nullopt;
      baseline = max_;
      break;
  }
  return expression_.number * baseline;
}

void CustomCondition::Remember(double value) {
  if (expression_.baseline == Expression::Baseline::kNone) return;
  if (expression_.baseline == Expression::Baseline::kMedian) recent_.Add(value);
  average_.Add(value);
  min_ = first_.has_value() ? std::min(min_, value) : value;
  max_ = first_.has_value() ? std::max(max_, value) : value;
  if (!first_.has_value()) first_ = value;
}

Observation CustomCondition::Observe(const v1::StepStats& stats, const Layout& layout) {
  Observation seen;
  const std::optional<Measured> measured = Measure(stats, layout);
  if (!measured.has_value()) return seen;
  // Compared with the past without itself.
  const std::optional<double> limit = Limit();
  Remember(measured->value);
  if (!limit.has_value()) return seen;
  latest_ = *measured;
  limit_ = *limit;
  const double value = measured->value;
  bool holds = false;
  switch (expression_.comparison) {
    case Expression::Operator::kGreater:
      holds = value > *limit;
      break;
    case Expression::Operator::kGreaterOrEqual:
      holds = value >= *limit;
      break;
    case Expression::Operator::kLess:
      holds = value < *limit;
      break;
    case Expression::Operator::kLessOrEqual:
      holds = value <= *limit;
      break;
  }
  seen.known = true;
  seen.clauses[0] = {.holds = holds,
                     .value = value,
                     .threshold = *limit,
                     .smaller_is_worse = expression_.smaller_is_worse()};
  seen.clear = !holds;
  seen.severity = settings_.severity;
  return seen;
}

Description CustomCondition::Describe(const v1::StepStats& stats) const {
  Description text;
  text.tensor = names_[static_cast<size_t>(latest_.index)];
  text.message = absl::StrCat(expression_.statistic->name,
                              text.tensor.empty() ? "" : absl::StrCat(" of ", text.tensor), " is ",
                              Number(latest_.value), " (limit ", Number(limit_), ") at step ",
                              stats.step(), ": ", rule_.expression(), ".");
  text.advice = rule_.advice();
  return text;
}

void CustomCondition::SaveState(stats::StateWriter* writer) const {
  recent_.SaveState(writer);
  average_.SaveState(writer);
  writer->Int(first_.has_value() ? 1 : 0);
  for (const double value : {first_.value_or(0.0), min_, max_, latest_.value, limit_}) {
    writer->Double(value);
  }
  writer->Int(latest_.index);
}

void CustomCondition::LoadState(stats::StateReader* reader) {
  recent_.LoadState(reader);
  average_.LoadState(reader);
  const bool has_first = reader->Int() != 0;
  const double first = reader->Double();
  first_ = has_first ? Maybe(first) : std::nullopt;
  min_ = reader->Double();
  max_ = reader->Double();
  latest_.value = reader->Double();
  limit_ = reader->Double();
  const int64_t index = reader->Int();
  if (index < 0 || (index > 0 && index >= std::ssize(selected_))) reader->Fail();
  latest_.index = reader->ok() ? static_cast<int>(index) : 0;
}

}  // namespace gradwatch::alerts
