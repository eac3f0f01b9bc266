#ifndef GRADWATCH_SERVER_ALERTS_RULE_ENGINE_H_
#define GRADWATCH_SERVER_ALERTS_RULE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gradwatch/v1/alert.pb.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/alerts/rule_catalogue.h"

namespace gradwatch::alerts {

// Watches one job: runs every rule over each step's statistics and keeps the alerts that come of
// it. The order of calls is all that counts: same steps, same settings, same alerts, also across
// SaveState and LoadState. Wall time is only copied into alerts.
// Threads: one at a time.
class RuleEngine {
 public:
  // At most so many alerts are kept. Resolved ones are forgotten first, oldest first.
  static constexpr int kAlertsMax = 1000;

  // `complete_job` is a job with its name, parameters and every default filled in, and with rule
  // settings that CheckRuleSettings accepts.
  explicit RuleEngine(const v1::Job& complete_job);
  ~RuleEngine();
  RuleEngine(const RuleEngine&) = delete;
  RuleEngine& operator=(const RuleEngine&) = delete;

  // Runs the rules over one step. Steps come in order, each once. Appends to `changed` a copy of
  // each alert that began to fire, rose in severity, was re-opened or resolved at this step.
  // Pending alerts are not reported; see pending().
  void Observe(const v1::StepStats& stats, absl::Time now, std::vector<v1::Alert>* changed);

  // Takes over the rules and the clipping of a job that was edited. A rule whose settings changed
  // starts anew: what fires resolves with RULE_CHANGED, baselines stay.
  void SetRules(const v1::Job& job, absl::Time now, std::vector<v1::Alert>* changed);

  // The job ended and its grace period passed: what fires resolves with JOB_ENDED.
  void EndJob(absl::Time now, std::vector<v1::Alert>* changed);

  // Firing and resolved alerts, newest last.
  const std::deque<v1::Alert>& alerts() const;
  // What holds but has not for long enough, as of the last step. These have no name yet.
  std::vector<v1::Alert> pending() const;
  // Alerts that were dropped because there were more than kAlertsMax.
  int64_t forgotten() const;
  // How many fire now.
  int firing() const;

  // Everything but the settings: baselines, what is pending, alerts.
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
