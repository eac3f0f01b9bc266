#ifndef GRADWATCH_SERVER_ALERTS_RULES_H_
#define GRADWATCH_SERVER_ALERTS_RULES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "google/protobuf/repeated_field.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/baselines.h"
#include "server/alerts/layout.h"

// The rules as pure functions: same arguments, same answer, nothing kept.
namespace gradwatch::alerts {

// A rule's settings with every default filled in; see v1.RuleSettings.
struct Settings {
  bool disabled = false;
  double threshold = 0.0;
  double second_threshold = 0.0;
  v1::Severity severity = v1::SEVERITY_UNSPECIFIED;  // Unspecified: the rule's own.
  int64_t warmup_steps = 0;
  int64_t for_steps = 1;
  int64_t resolve_steps = 1;
  int64_t cooldown_steps = 0;
  int64_t window_steps = 0;  // 0: the rule has none.

  bool operator==(const Settings&) const = default;
};

// What other rules of the same job say, as of the step before.
struct Others {
  uint64_t firing = 0;  // Bit v1::RuleId.
  // The newest step at which EXPLODING_ABS or LOSS_DIVERGENCE fired; -1 for none.
  int64_t explosion_step = -1;

  bool Fires(v1::RuleId id) const { return ((firing >> id) & 1) != 0; }
};

// What a rule looks at. `baselines` have taken in `stats` already.
struct Context {
  const v1::Job& job;
  const Layout& layout;
  const v1::StepStats& stats;
  const Baselines& baselines;
  const Others& others;
  const Settings& settings;
  int part = 0;  // Of a rule that looks at parts: which group of the layout.

  const Group& group() const { return layout.groups[static_cast<size_t>(part)]; }
};

// One way for a rule's condition to be true.
struct Clause {
  bool holds = false;
  double value = 0.0;      // What was observed, whether it holds or not.
  double threshold = 0.0;  // What it is compared with.
  int64_t for_factor = 1;  // It must hold for settings.for_steps times this.
  bool smaller_is_worse = false;
  // A single event: told at once and as INFO whatever the settings say, and not within the
  // cool-down of an alert that told more.
  bool event = false;
};

// The most ways that a rule has.
constexpr size_t kClauses = 3;

// What a rule sees in one step.
struct Observation {
  // The statistics that the rule needs are there. When they are not, the rule stands still.
  bool known = false;
  std::array<Clause, kClauses> clauses;
  // The resolve condition; never true together with a clause that holds.
  bool clear = false;
  v1::Severity severity = v1::SEVERITY_UNSPECIFIED;

  // The first clause that holds; -1 for none. Events come last.
  int FirstThatHolds() const;
  bool holds() const { return FirstThatHolds() >= 0; }
};

// What an alert says.
struct Description {
  std::string tensor;
  int time_step = -1;  // -1 for none.
  std::string message;
  std::string advice;
};

// What a rule judges one by one, each with alerts of its own.
enum class Scope { kJob, kLayers, kGroups };

// One entry of the table of rules.
struct RuleKind {
  v1::RuleId id;
  Scope scope;
  // Looks at steps that are not finite, too. All other rules stand still for them.
  bool sees_nonfinite;
  Observation (*observe)(const Context&);
  // For an observation whose clause number `clause` holds.
  Description (*describe)(const Context&, const Observation&, int clause);
};

// In the order of RuleCatalogue().
absl::Span<const RuleKind> Rules();

// The catalogue's defaults, overridden by the entry of `overrides` for that rule, if any.
Settings SettingsOf(v1::RuleId id,
                    const google::protobuf::RepeatedPtrField<v1::RuleSettings>& overrides);

// How far back the rules look with these settings.
Windows WindowsOf(const google::protobuf::RepeatedPtrField<v1::RuleSettings>& overrides);

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_RULES_H_
