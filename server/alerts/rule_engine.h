#ifndef GRADWATCH_SERVER_ALERTS_RULE_ENGINE_H_
#define GRADWATCH_SERVER_ALERTS_RULE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/rule_catalogue.h"

namespace gradwatch::alerts {

// Watches one job: runs every rule over each step's statistics and keeps the alerts that come of
// it. The order of calls is all that counts: same steps, same settings, same alerts, also across
// SaveState and LoadState. Wall time is only copied into alerts, but for CheckProgress and the end
// of acknowledgements and silences.
// Threads: one at a time.
class RuleEngine {
 public:
  // At most so many alerts are kept. Resolved ones are forgotten first, oldest first.
  static constexpr int kAlertsMax = 1000;

  // `complete_job` is a job with its name, parameters and every default filled in, and with rule
  // settings that CheckRuleSettings and CheckCustomRules accept.
  explicit RuleEngine(const v1::Job& complete_job);
  ~RuleEngine();
  RuleEngine(const RuleEngine&) = delete;
  RuleEngine& operator=(const RuleEngine&) = delete;

  // Runs the rules over one step. Steps come in order, each once. Appends to `changed` a copy of
  // each alert that began to fire, rose in severity, came to tell of more than a single event, was
  // re-opened or resolved at this step, or whose silence ended. Pending alerts are not reported;
  // see pending().
  void Observe(const v1::StepStats& stats, absl::Time now, std::vector<v1::Alert>* changed);

  // Says that time passes while no step ends: what STALLED_JOB looks at. Time counts from the last
  // Observe, or from the first call when there was none.
  void CheckProgress(absl::Time now, std::vector<v1::Alert>* changed);

  // Takes over rules, custom rules and clipping of a job that was edited. A rule whose settings
  // changed starts anew: what fires resolves with RULE_CHANGED. Baselines stay; where a window
  // became shorter they keep the newest values, and a longer one fills up first.
  void SetRules(const v1::Job& job, absl::Time now, std::vector<v1::Alert>* changed);

  // The job ended and its grace period passed: what fires resolves with JOB_ENDED.
  void EndJob(absl::Time now, std::vector<v1::Alert>* changed);

  // Notes who looks after alert `number`, which must fire: NOT_FOUND, FAILED_PRECONDITION.
  absl::StatusOr<v1::Alert> Acknowledge(int64_t number, const v1::Acknowledgement& acknowledgement,
                                        std::vector<v1::Alert>* changed);
  // Silences the rule that `silence` names until its expire_time, instead of an earlier silence.
  // NOT_FOUND when the job has no such rule.
  absl::Status Silence(const v1::Silence& silence, std::vector<v1::Alert>* changed);
  // NOT_FOUND when the rule is not silenced.
  absl::Status Unsilence(absl::string_view rule_name, std::vector<v1::Alert>* changed);
  // By name of the rule; those that ended before the last call with a time may be among them.
  const std::vector<v1::Silence>& silences() const;

  // Firing and resolved alerts, newest last.
  const std::deque<v1::Alert>& alerts() const;
  // What holds but has not for long enough, as of the last step. These have no name yet.
  std::vector<v1::Alert> pending() const;
  // Alerts that were dropped because there were more than kAlertsMax.
  int64_t forgotten() const;
  // How many fire now.
  int firing() const;

  // Everything but the settings: baselines, what is pending, alerts, silences.
  std::string SaveState() const;
  // Restores what SaveState wrote, on an engine of the same job. INVALID_ARGUMENT when the bytes
  // are not such a state; the engine is then as before the call.
  absl::Status LoadState(absl::string_view state);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_RULE_ENGINE_H_
