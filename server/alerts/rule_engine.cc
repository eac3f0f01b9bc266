#include "server/alerts/rule_engine.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/alerts/alert_log.h"
#include "server/alerts/baselines.h"
#include "server/alerts/life_cycle.h"
#include "server/alerts/rules.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {
namespace {

constexpr int64_t kStateVersion = 1;

// What rules read of a job.
v1::Job RelevantPart(const v1::Job& job) {
  v1::Job part;
  part.set_name(job.name());
  *part.mutable_model() = job.model();
  *part.mutable_optimizer() = job.optimizer();
  *part.mutable_clipping() = job.clipping();
  *part.mutable_training() = job.training();
  *part.mutable_parameters() = job.parameters();
  return part;
}

const std::string& RuleName(size_t index) { return RuleCatalogue()[index].name(); }

void SetTime(absl::Time time, google::protobuf::Timestamp* timestamp) {
  const int64_t nanos = absl::ToUnixNanos(time);
  constexpr int64_t kNanosPerSecond = 1'000'000'000;
  timestamp->set_seconds(nanos / kNanosPerSecond);
  timestamp->set_nanos(static_cast<int32_t>(nanos % kNanosPerSecond));
}

}  // namespace

class RuleEngine::Impl {
 public:
  explicit Impl(const v1::Job& job)
      : job_(RelevantPart(job)), lives_(Rules().size()), log_(job.name(), kAlertsMax) {
    for (const RuleKind& rule : Rules()) settings_.push_back(SettingsOf(rule.id, job.rules()));
  }

  void Observe(const v1::StepStats& stats, absl::Time now, std::vector<v1::Alert>* changed) {
    last_step_ = stats.step();
    baselines_.Observe(stats);
    const bool nonfinite = baselines_.nonfinite_in_a_row > 0;
    for (size_t i = 0; i < Rules().size(); ++i) {
      if (settings_[i].disabled || stats.step() < settings_[i].warmup_steps) continue;
      if (nonfinite && !Rules()[i].sees_nonfinite) continue;
      RunRule(i, stats, now, changed);
    }
  }

  void SetRules(const v1::Job& job, absl::Time now, std::vector<v1::Alert>* changed) {
    job_ = RelevantPart(job);
    for (size_t i = 0; i < Rules().size(); ++i) {
      const Settings settings = SettingsOf(Rules()[i].id, job.rules());
      if (settings == settings_[i]) continue;
      settings_[i] = settings;
      Resolve(i, v1::Alert::RESOLVE_REASON_RULE_CHANGED, now, changed);
      lives_[i] = Life();
    }
  }

  void EndJob(absl::Time now, std::vector<v1::Alert>* changed) {
    for (size_t i = 0; i < Rules().size(); ++i) {
      Resolve(i, v1::Alert::RESOLVE_REASON_JOB_ENDED, now, changed);
      lives_[i] = Life();
    }
  }

  const AlertLog& log() const { return log_; }

  std::vector<v1::Alert> Pending() const {
    std::vector<v1::Alert> pending;
    for (size_t i = 0; i < lives_.size(); ++i) {
      if (lives_[i].phase != Life::Phase::kPending) continue;
      v1::Alert& alert = pending.emplace_back();
      alert.set_rule(Rules()[i].id);
      alert.set_rule_name(RuleName(i));
      alert.set_state(v1::Alert::STATE_PENDING);
      alert.set_pending_step(lives_[i].pending_step);
      alert.set_last_step(last_step_);
    }
    return pending;
  }

  int Firing() const {
    return static_cast<int>(std::count_if(lives_.begin(), lives_.end(), [](const Life& life) {
      return life.phase == Life::Phase::kFiring;
    }));
  }

  std::string SaveState() const {
    stats::StateWriter writer;
    writer.Int(kStateVersion);
    writer.Int(last_step_);
    baselines_.SaveState(&writer);
    for (const Life& life : lives_) life.SaveState(&writer);
    log_.SaveState(&writer);
    return writer.bytes();
  }

  bool LoadState(absl::string_view state) {
    stats::StateReader reader(state);
    if (reader.Int() != kStateVersion) return false;
    last_step_ = reader.Int();
    baselines_.LoadState(&reader);
    for (Life& life : lives_) life.LoadState(&reader);
    log_.LoadState(&reader);
    return reader.ok() && reader.at_end();
  }

 private:
  void RunRule(size_t i, const v1::StepStats& stats, absl::Time now,
               std::vector<v1::Alert>* changed) {
    const Context context = {job_, stats, baselines_, settings_[i]};
    const Observation seen = Rules()[i].observe(context);
    if (!seen.known) return;
    switch (Advance(seen, settings_[i], stats.step(), &lives_[i])) {
      case Transition::kFires:
        Fire(i, context, seen, now, changed);
        break;
      case Transition::kResolves:
        Note(i, seen, stats.step());
        Resolve(i, v1::Alert::RESOLVE_REASON_CONDITION, now, changed);
        break;
      case Transition::kNone:
        if (lives_[i].phase == Life::Phase::kFiring) Follow(i, context, seen, changed);
        break;
    }
  }

  void Fire(size_t i, const Context& context, const Observation& seen, absl::Time now,
            std::vector<v1::Alert>* changed) {
    Life& life = lives_[i];
    v1::Alert* alert = WithinCooldown(life, settings_[i]) ? log_.Find(life.alert) : nullptr;
    if (alert == nullptr) {
      life.alert = log_.Add();
      alert = log_.Find(life.alert);
      alert->set_rule(Rules()[i].id);
      alert->set_rule_name(RuleName(i));
      alert->set_pending_step(life.pending_step);
      alert->set_firing_step(context.stats.step());
      alert->set_first_value(seen.clauses[static_cast<size_t>(life.clause)].value);
      alert->set_peak_value(alert->first_value());
      SetTime(now, alert->mutable_fire_time());
    }
    alert->set_count(alert->count() + 1);
    alert->set_state(v1::Alert::STATE_FIRING);
    alert->clear_resolve_reason();
    alert->clear_resolve_time();
    alert->clear_resolved_step();
    alert->set_severity(std::max(alert->severity(), seen.severity));
    Describe(i, context, seen, alert);
    Note(i, seen, context.stats.step());
    changed->push_back(*alert);
  }

  // Keeps a firing alert's numbers up to date.
  void Follow(size_t i, const Context& context, const Observation& seen,
              std::vector<v1::Alert>* changed) {
    Note(i, seen, context.stats.step());
    v1::Alert* alert = log_.Find(lives_[i].alert);
    if (alert == nullptr || !seen.holds() || seen.severity <= alert->severity()) return;
    alert->set_severity(seen.severity);
    Describe(i, context, seen, alert);
    changed->push_back(*alert);
  }

  void Note(size_t i, const Observation& seen, int64_t step) {
    v1::Alert* alert = log_.Find(lives_[i].alert);
    if (alert == nullptr) return;
    const double value = seen.clauses[static_cast<size_t>(lives_[i].clause)].value;
    alert->set_last_value(value);
    if (seen.holds()) alert->set_last_step(step);
    const bool worse =
        Rules()[i].smaller_is_worse ? value < alert->peak_value() : value > alert->peak_value();
    if (worse) alert->set_peak_value(value);
  }

  void Describe(size_t i, const Context& context, const Observation& seen, v1::Alert* alert) {
    // A firing alert may grow worse by the clause that it did not fire for.
    const int fired = lives_[i].clause;
    const int clause = seen.clauses[static_cast<size_t>(fired)].holds ? fired : 1 - fired;
    Description text = Rules()[i].describe(context, seen, clause);
    alert->set_threshold(seen.clauses[static_cast<size_t>(fired)].threshold);
    alert->set_tensor(std::move(text.tensor));
    alert->clear_time_step();
    if (text.time_step >= 0) alert->set_time_step(text.time_step);
    alert->set_message(std::move(text.message));
    alert->set_advice(std::move(text.advice));
  }

  // Ends the alert of a rule that fires; does nothing for one that does not.
  void Resolve(size_t i, v1::Alert::ResolveReason reason, absl::Time now,
               std::vector<v1::Alert>* changed) {
    v1::Alert* alert = log_.Find(lives_[i].alert);
    if (alert == nullptr || alert->state() != v1::Alert::STATE_FIRING) return;
    alert->set_state(v1::Alert::STATE_RESOLVED);
    alert->set_resolve_reason(reason);
    alert->set_resolved_step(last_step_);
    SetTime(now, alert->mutable_resolve_time());
    changed->push_back(*alert);
  }

  v1::Job job_;
  // By index of Rules().
  std::vector<Settings> settings_;
  std::vector<Life> lives_;
  Baselines baselines_;
  AlertLog log_;
  int64_t last_step_ = -1;
};

RuleEngine::RuleEngine(const v1::Job& complete_job) : impl_(std::make_unique<Impl>(complete_job)) {}

RuleEngine::~RuleEngine() = default;

void RuleEngine::Observe(const v1::StepStats& stats, absl::Time now,
                         std::vector<v1::Alert>* changed) {
  impl_->Observe(stats, now, changed);
}

void RuleEngine::SetRules(const v1::Job& job, absl::Time now, std::vector<v1::Alert>* changed) {
  impl_->SetRules(job, now, changed);
}

void RuleEngine::EndJob(absl::Time now, std::vector<v1::Alert>* changed) {
  impl_->EndJob(now, changed);
}

const std::deque<v1::Alert>& RuleEngine::alerts() const { return impl_->log().alerts(); }

std::vector<v1::Alert> RuleEngine::pending() const { return impl_->Pending(); }

int64_t RuleEngine::forgotten() const { return impl_->log().forgotten(); }

int RuleEngine::firing() const { return impl_->Firing(); }

std::string RuleEngine::SaveState() const { return impl_->SaveState(); }

absl::Status RuleEngine::LoadState(absl::string_view state) {
  auto loaded = std::make_unique<Impl>(*impl_);
  if (!loaded->LoadState(state)) {
    return absl::InvalidArgumentError("the bytes are not a state of the alert rules");
  }
  impl_ = std::move(loaded);
  return absl::OkStatus();
}

}  // namespace gradwatch::alerts
