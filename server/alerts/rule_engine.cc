#include "server/alerts/rule_engine.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/timestamp.h"
#include "server/alerts/alert_log.h"
#include "server/alerts/baselines.h"
#include "server/alerts/custom_rule.h"
#include "server/alerts/layout.h"
#include "server/alerts/life_cycle.h"
#include "server/alerts/observe.h"
#include "server/alerts/rules.h"
#include "server/alerts/silences.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {
namespace {

constexpr int64_t kStateVersion = 4;

// What rules read of a job.
v1::Job RelevantPart(const v1::Job& job) {
  v1::Job part;
  part.set_name(job.name());
  *part.mutable_task() = job.task();
  *part.mutable_model() = job.model();
  *part.mutable_optimizer() = job.optimizer();
  *part.mutable_clipping() = job.clipping();
  *part.mutable_training() = job.training();
  *part.mutable_parameters() = job.parameters();
  return part;
}

bool IsExplosion(v1::RuleId id) {
  return id == v1::RULE_ID_EXPLODING_ABS || id == v1::RULE_ID_LOSS_DIVERGENCE;
}

void OverrideSeverity(const Settings& settings, Observation* seen) {
  if (settings.severity != v1::SEVERITY_UNSPECIFIED) seen->severity = settings.severity;
}

int Parts(Scope scope, const Layout& layout) {
  switch (scope) {
    case Scope::kLayers:
      return layout.layers;
    case Scope::kGroups:
      return static_cast<int>(layout.groups.size());
    case Scope::kJob:
      break;
  }
  return 1;
}

}  // namespace

class RuleEngine::Impl {
 public:
  explicit Impl(const v1::Job& job)
      : job_(RelevantPart(job)),
        layout_(LayoutOf(job)),
        posts_(Posts(job, layout_)),
        baselines_(WindowsOf(job.rules())),
        log_(job.name(), kAlertsMax) {}

  void Observe(const v1::StepStats& stats, absl::Time now, std::vector<v1::Alert>* changed) {
    last_step_ = stats.step();
    last_time_ = now;
    EndSilences(now, changed);
    baselines_.Observe(stats, layout_);
    const bool nonfinite = baselines_.nonfinite_in_a_row > 0;
    Others others;
    for (const Post& post : posts_) {
      if (!post.fires()) continue;
      others.firing |= uint64_t{1} << post.id();
      if (IsExplosion(post.id())) explosion_step_ = last_step_;
    }
    others.explosion_step = explosion_step_;
    for (Post& post : posts_) {
      if (post.settings.disabled) continue;
      if (nonfinite && !post.sees_nonfinite()) continue;
      RunRule(stats, others, now, &post, changed);
    }
  }

  void CheckProgress(absl::Time now, std::vector<v1::Alert>* changed) {
    if (!last_time_.has_value()) last_time_ = now;
    EndSilences(now, changed);
    for (Post& post : posts_) {
      if (post.id() != v1::RULE_ID_STALLED_JOB || post.settings.disabled || post.fires()) continue;
      Observation seen = Stall(absl::ToDoubleSeconds(now - *last_time_), post.settings);
      if (!seen.holds()) continue;
      OverrideSeverity(post.settings, &seen);
      v1::StepStats next;
      next.set_step(last_step_ + 1);
      post.life.phase = Life::Phase::kFiring;
      post.life.pending_step = next.step();
      post.life.clause = 0;
      post.life.clear_run = 0;
      Fire({job_, layout_, next, baselines_, Others(), post.settings, post.part}, seen, now, &post,
           changed);
    }
  }

  void SetRules(const v1::Job& job, absl::Time now, std::vector<v1::Alert>* changed) {
    job_ = RelevantPart(job);
    baselines_.SetWindows(WindowsOf(job.rules()));
    std::vector<Post> next = Posts(job, layout_);
    for (Post& before : posts_) {
      const auto same = std::find_if(next.begin(), next.end(),
                                     [&](const Post& post) { return post.SameAs(before); });
      if (same != next.end()) {
        *same = std::move(before);
      } else {
        Resolve(v1::Alert::RESOLVE_REASON_RULE_CHANGED, now, &before, changed);
      }
    }
    posts_ = std::move(next);
  }

  void EndJob(absl::Time now, std::vector<v1::Alert>* changed) {
    for (Post& post : posts_) {
      Resolve(v1::Alert::RESOLVE_REASON_JOB_ENDED, now, &post, changed);
      post.life = Life();
    }
  }

  absl::StatusOr<v1::Alert> Acknowledge(int64_t number, const v1::Acknowledgement& acknowledgement,
                                        std::vector<v1::Alert>* changed) {
    v1::Alert* alert = log_.Find(number);
    if (alert == nullptr) {
      return absl::NotFoundError(absl::StrCat(job_.name(), " has no alert ", number));
    }
    if (alert->state() != v1::Alert::STATE_FIRING) {
      return absl::FailedPreconditionError(
          absl::StrCat(alert->name(), " has resolved; only one that fires can be acknowledged"));
    }
    *alert->mutable_acknowledgement() = acknowledgement;
    changed->push_back(*alert);
    return *alert;
  }

  absl::Status Silence(const v1::Silence& silence, std::vector<v1::Alert>* changed) {
    const bool known = std::any_of(posts_.begin(), posts_.end(), [&](const Post& post) {
      return post.name == silence.rule_name();
    });
    if (!known) {
      return absl::NotFoundError(absl::StrCat(job_.name(), " has no rule ", silence.rule_name()));
    }
    silences_.Set(silence);
    MarkSilenced(silence.rule_name(), changed);
    return absl::OkStatus();
  }

  absl::Status Unsilence(absl::string_view rule_name, std::vector<v1::Alert>* changed) {
    if (!silences_.Remove(rule_name)) {
      return absl::NotFoundError(absl::StrCat(rule_name, " is not silenced in ", job_.name()));
    }
    MarkSilenced(rule_name, changed);
    return absl::OkStatus();
  }

  const std::vector<v1::Silence>& silences() const { return silences_.all(); }

  const AlertLog& log() const { return log_; }

  std::vector<v1::Alert> Pending() const {
    std::vector<v1::Alert> pending;
    for (const Post& post : posts_) {
      if (post.life.phase != Life::Phase::kPending) continue;
      v1::Alert& alert = pending.emplace_back();
      alert.set_rule(post.id());
      alert.set_rule_name(post.name);
      alert.set_state(v1::Alert::STATE_PENDING);
      alert.set_pending_step(post.life.pending_step);
      alert.set_last_step(last_step_);
    }
    return pending;
  }

  int Firing() const {
    return static_cast<int>(
        std::count_if(posts_.begin(), posts_.end(), [](const Post& post) { return post.fires(); }));
  }

  std::string SaveState() const {
    stats::StateWriter writer;
    writer.Int(kStateVersion);
    writer.Int(last_step_);
    writer.Int(explosion_step_);
    baselines_.SaveState(&writer);
    for (const Post& post : posts_) {
      post.life.SaveState(&writer);
      if (post.custom.has_value()) post.custom->SaveState(&writer);
    }
    silences_.SaveState(&writer);
    log_.SaveState(&writer);
    return writer.bytes();
  }

  bool LoadState(absl::string_view state) {
    stats::StateReader reader(state);
    if (reader.Int() != kStateVersion) return false;
    last_step_ = reader.Int();
    explosion_step_ = reader.Int();
    last_time_.reset();
    baselines_.LoadState(&reader);
    for (Post& post : posts_) {
      post.life.LoadState(&reader);
      if (post.custom.has_value()) post.custom->LoadState(&reader);
    }
    silences_.LoadState(&reader);
    log_.LoadState(&reader);
    return reader.ok() && reader.at_end();
  }

 private:
  // One rule at one part of the job, with a life of its own.
  struct Post {
    const RuleKind* kind = nullptr;  // Null for a custom rule.
    int part = 0;
    std::optional<CustomCondition> custom;
    std::string name;
    Settings settings;
    Life life;

    v1::RuleId id() const { return kind != nullptr ? kind->id : v1::RULE_ID_CUSTOM; }
    bool sees_nonfinite() const { return kind != nullptr && kind->sees_nonfinite; }
    bool fires() const { return life.phase == Life::Phase::kFiring; }

    // Same rule, same part, same settings.
    bool SameAs(const Post& other) const {
      return kind == other.kind && part == other.part && name == other.name &&
             settings == other.settings &&
             (!custom.has_value() ||
              custom->rule().SerializeAsString() == other.custom->rule().SerializeAsString());
    }
  };

  static std::vector<Post> Posts(const v1::Job& job, const Layout& layout) {
    std::vector<Post> posts;
    for (size_t i = 0; i < Rules().size(); ++i) {
      const RuleKind& kind = Rules()[i];
      for (int part = 0; part < Parts(kind.scope, layout); ++part) {
        posts.push_back({.kind = &kind,
                         .part = part,
                         .custom = std::nullopt,
                         .name = RuleCatalogue()[i].name(),
                         .settings = SettingsOf(kind.id, job.rules()),
                         .life = {}});
      }
    }
    for (const v1::CustomRule& rule : job.custom_rules()) {
      Post& post = posts.emplace_back();
      post.custom.emplace(rule, job);
      post.name = rule.name();
      post.settings = post.custom->settings();
    }
    return posts;
  }

  void RunRule(const v1::StepStats& stats, const Others& others, absl::Time now, Post* post,
               std::vector<v1::Alert>* changed) {
    const Context context = {job_, layout_, stats, baselines_, others, post->settings, post->part};
    // The past of a custom rule is its own, so it looks during warm-up, too.
    const bool warm = stats.step() >= post->settings.warmup_steps;
    if (!warm && !post->custom.has_value()) return;
    Observation seen = post->custom.has_value() ? post->custom->Observe(stats, layout_)
                                                : post->kind->observe(context);
    if (!seen.known || !warm) return;
    OverrideSeverity(post->settings, &seen);
    switch (Advance(seen, post->settings, stats.step(), &post->life)) {
      case Transition::kFires:
        Fire(context, seen, now, post, changed);
        break;
      case Transition::kTakesOver:
        TakeOver(context, seen, now, *post, changed);
        break;
      case Transition::kResolves:
        Note(*post, seen, stats.step(), log_.Find(post->life.alert));
        Resolve(v1::Alert::RESOLVE_REASON_CONDITION, now, post, changed);
        break;
      case Transition::kNone:
        if (post->fires()) Follow(context, seen, *post, changed);
        break;
    }
  }

  void Fire(const Context& context, const Observation& seen, absl::Time now, Post* post,
            std::vector<v1::Alert>* changed) {
    Life& life = post->life;
    v1::Alert* alert = WithinCooldown(life, post->settings) ? log_.Find(life.alert) : nullptr;
    if (alert == nullptr) {
      life.alert = log_.Add();
      alert = log_.Find(life.alert);
      alert->set_rule(post->id());
      alert->set_rule_name(post->name);
      alert->set_pending_step(life.pending_step);
      alert->set_peak_value(seen.clauses[static_cast<size_t>(life.clause)].value);
      Date(context, seen, life, now, alert);
    }
    NoteLastGoodStep(context.stats, alert);
    alert->set_count(alert->count() + 1);
    alert->set_state(v1::Alert::STATE_FIRING);
    alert->clear_resolve_reason();
    alert->clear_resolve_time();
    alert->clear_resolved_step();
    alert->clear_acknowledgement();
    const bool event = FiredForEvent(seen, life);
    alert->set_single_event(event);
    alert->set_severity(std::max(alert->severity(), event ? v1::SEVERITY_INFO : seen.severity));
    silences_.Mark(alert);
    Describe(context, seen, *post, alert);
    Note(*post, seen, context.stats.step(), alert);
    changed->push_back(*alert);
  }

  // An alert that told of an event tells of more from now on, as if it fired now.
  void TakeOver(const Context& context, const Observation& seen, absl::Time now, const Post& post,
                std::vector<v1::Alert>* changed) {
    v1::Alert* alert = log_.Find(post.life.alert);
    if (alert == nullptr) return;
    Note(post, seen, context.stats.step(), alert);
    alert->set_single_event(false);
    alert->set_severity(std::max(alert->severity(), seen.severity));
    alert->clear_acknowledgement();
    Date(context, seen, post.life, now, alert);
    NoteLastGoodStep(context.stats, alert);
    Describe(context, seen, post, alert);
    changed->push_back(*alert);
  }

  // Puts down that the alert fires now.
  static void Date(const Context& context, const Observation& seen, const Life& life,
                   absl::Time now, v1::Alert* alert) {
    alert->set_firing_step(context.stats.step());
    alert->set_first_value(seen.clauses[static_cast<size_t>(life.clause)].value);
    SetTimestamp(now, alert->mutable_fire_time());
  }

  static void NoteLastGoodStep(const v1::StepStats& stats, v1::Alert* alert) {
    alert->clear_last_good_step();
    if (stats.has_last_good_step()) alert->set_last_good_step(stats.last_good_step());
  }

  // Keeps a firing alert's numbers up to date.
  void Follow(const Context& context, const Observation& seen, const Post& post,
              std::vector<v1::Alert>* changed) {
    v1::Alert* alert = log_.Find(post.life.alert);
    Note(post, seen, context.stats.step(), alert);
    if (alert == nullptr || !seen.holds() || FiredForEvent(seen, post.life)) return;
    if (seen.severity <= alert->severity()) return;
    alert->set_severity(seen.severity);
    alert->clear_acknowledgement();
    Describe(context, seen, post, alert);
    changed->push_back(*alert);
  }

  // `alert` is null when it has been forgotten.
  static void Note(const Post& post, const Observation& seen, int64_t step, v1::Alert* alert) {
    if (alert == nullptr) return;
    const Clause& clause = seen.clauses[static_cast<size_t>(post.life.clause)];
    alert->set_last_value(clause.value);
    if (seen.holds()) alert->set_last_step(step);
    const bool worse = clause.smaller_is_worse ? clause.value < alert->peak_value()
                                               : clause.value > alert->peak_value();
    if (worse) alert->set_peak_value(clause.value);
  }

  void Describe(const Context& context, const Observation& seen, const Post& post,
                v1::Alert* alert) {
    // A firing alert may grow worse by the clause that it did not fire for.
    const int fired = post.life.clause;
    const int clause =
        seen.clauses[static_cast<size_t>(fired)].holds ? fired : seen.FirstThatHolds();
    Description text = post.custom.has_value() ? post.custom->Describe(context.stats)
                                               : post.kind->describe(context, seen, clause);
    alert->set_threshold(seen.clauses[static_cast<size_t>(fired)].threshold);
    alert->set_tensor(std::move(text.tensor));
    alert->clear_time_step();
    if (text.time_step >= 0) alert->set_time_step(text.time_step);
    if (post.id() != v1::RULE_ID_STALLED_JOB) alert->set_batch_origin(context.stats.batch_origin());
    alert->set_message(std::move(text.message));
    alert->set_advice(std::move(text.advice));
  }

  // Ends the alert of a rule that fires; does nothing for one that does not.
  void Resolve(v1::Alert::ResolveReason reason, absl::Time now, Post* post,
               std::vector<v1::Alert>* changed) {
    v1::Alert* alert = log_.Find(post->life.alert);
    if (alert == nullptr || alert->state() != v1::Alert::STATE_FIRING) return;
    alert->set_state(v1::Alert::STATE_RESOLVED);
    alert->set_resolve_reason(reason);
    alert->set_resolved_step(last_step_);
    SetTimestamp(now, alert->mutable_resolve_time());
    changed->push_back(*alert);
  }

  // Brings what fires of a rule into line with its silence.
  void MarkSilenced(absl::string_view rule_name, std::vector<v1::Alert>* changed) {
    for (const Post& post : posts_) {
      if (post.name != rule_name || !post.fires()) continue;
      v1::Alert* alert = log_.Find(post.life.alert);
      if (alert == nullptr) continue;
      silences_.Mark(alert);
      changed->push_back(*alert);
    }
  }

  void EndSilences(absl::Time now, std::vector<v1::Alert>* changed) {
    if (silences_.all().empty()) return;
    for (const std::string& rule_name : silences_.RemoveEnded(now)) {
      MarkSilenced(rule_name, changed);
    }
  }

  v1::Job job_;
  Layout layout_;
  std::vector<Post> posts_;  // Built-in rules in the order of Rules(), then custom ones.
  Baselines baselines_;
  Silences silences_;
  AlertLog log_;
  int64_t last_step_ = -1;
  int64_t explosion_step_ = -1;
  std::optional<absl::Time> last_time_;  // Since when no step ended.
};

RuleEngine::RuleEngine(const v1::Job& complete_job) : impl_(std::make_unique<Impl>(complete_job)) {}

RuleEngine::~RuleEngine() = default;

void RuleEngine::Observe(const v1::StepStats& stats, absl::Time now,
                         std::vector<v1::Alert>* changed) {
  impl_->Observe(stats, now, changed);
}

void RuleEngine::CheckProgress(absl::Time now, std::vector<v1::Alert>* changed) {
  impl_->CheckProgress(now, changed);
}

void RuleEngine::SetRules(const v1::Job& job, absl::Time now, std::vector<v1::Alert>* changed) {
  impl_->SetRules(job, now, changed);
}

void RuleEngine::EndJob(absl::Time now, std::vector<v1::Alert>* changed) {
  impl_->EndJob(now, changed);
}

absl::StatusOr<v1::Alert> RuleEngine::Acknowledge(int64_t number,
                                                  const v1::Acknowledgement& acknowledgement,
                                                  std::vector<v1::Alert>* changed) {
  return impl_->Acknowledge(number, acknowledgement, changed);
}

absl::Status RuleEngine::Silence(const v1::Silence& silence, std::vector<v1::Alert>* changed) {
  return impl_->Silence(silence, changed);
}

absl::Status RuleEngine::Unsilence(absl::string_view rule_name, std::vector<v1::Alert>* changed) {
  return impl_->Unsilence(rule_name, changed);
}

const std::vector<v1::Silence>& RuleEngine::silences() const { return impl_->silences(); }

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
