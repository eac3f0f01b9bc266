#include "server/jobs/settings.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/message_differencer.h"
#include "proto/support/errors.h"
#include "server/base/check.h"
#include "server/jobs/names.h"
#include "server/train/trainer.h"

namespace gradwatch::jobs {
namespace {

// One setting that may change after creation.
struct LiveSetting {
  const char* path;
  bool seen_by_steps;
  bool seen_by_rules;
  bool (*is_set)(const v1::Job& job);
  // Copies, or resets to what FillDefaults replaces.
  void (*copy)(const v1::Job& from, v1::Job* to);
};

const LiveSetting kLiveSettings[] = {
    {"display_name", false, false, [](const v1::Job& job) { return !job.display_name().empty(); },
     [](const v1::Job& from, v1::Job* to) { to->set_display_name(from.display_name()); }},
    {"labels", false, false, [](const v1::Job& job) { return !job.labels().empty(); },
     [](const v1::Job& from, v1::Job* to) { *to->mutable_labels() = from.labels(); }},
    {"clipping", true, true, [](const v1::Job& job) { return job.has_clipping(); },
     [](const v1::Job& from, v1::Job* to) {
       to->clear_clipping();
       if (from.has_clipping()) *to->mutable_clipping() = from.clipping();
     }},
    {"optimizer.learning_rate", true, false,
     [](const v1::Job& job) { return job.optimizer().has_learning_rate(); },
     [](const v1::Job& from, v1::Job* to) {
       to->mutable_optimizer()->clear_learning_rate();
       if (from.optimizer().has_learning_rate()) {
         to->mutable_optimizer()->set_learning_rate(from.optimizer().learning_rate());
       }
     }},
    {"rules", true, true, [](const v1::Job& job) { return !job.rules().empty(); },
     [](const v1::Job& from, v1::Job* to) { *to->mutable_rules() = from.rules(); }},
    {"custom_rules", true, true, [](const v1::Job& job) { return !job.custom_rules().empty(); },
     [](const v1::Job& from, v1::Job* to) { *to->mutable_custom_rules() = from.custom_rules(); }},
    {"training.step_limit", true, false,
     [](const v1::Job& job) { return job.training().has_step_limit(); },
     [](const v1::Job& from, v1::Job* to) {
       to->mutable_training()->clear_step_limit();
       if (from.training().has_step_limit()) {
         to->mutable_training()->set_step_limit(from.training().step_limit());
       }
     }},
    {"training.truncation", true, false,
     [](const v1::Job& job) { return job.training().has_truncation(); },
     [](const v1::Job& from, v1::Job* to) {
       to->mutable_training()->clear_truncation();
       if (from.training().has_truncation()) {
         to->mutable_training()->set_truncation(from.training().truncation());
       }
     }},
    {"statistics_level", true, false,
     [](const v1::Job& job) { return job.statistics_level() != v1::STATISTICS_LEVEL_UNSPECIFIED; },
     [](const v1::Job& from, v1::Job* to) { to->set_statistics_level(from.statistics_level()); }},
};

const LiveSetting* Find(absl::string_view path) {
  for (const LiveSetting& setting : kLiveSettings) {
    if (path == setting.path) return &setting;
  }
  return nullptr;
}

std::string Allowed() {
  return absl::StrJoin(kLiveSettings, ", ", [](std::string* out, const LiveSetting& setting) {
    absl::StrAppend(out, setting.path);
  });
}

// What JSON of a job with only the setting at `path` has before the value:
// {"training":{"truncation":
std::string JsonBefore(absl::string_view path) {
  std::string before;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    absl::StrAppend(&before, "{\"", part, "\":");
  }
  return before;
}

// Empty when it is not set.
std::string ValueOf(const LiveSetting& setting, const v1::Job& job) {
  v1::Job only;
  setting.copy(job, &only);
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  GRADWATCH_CHECK(google::protobuf::util::MessageToJsonString(only, &json, options).ok());
  const std::string before = JsonBefore(setting.path);
  if (!absl::StartsWith(json, before)) return "";
  const auto depth = static_cast<size_t>(std::count(before.begin(), before.end(), '{'));
  return json.substr(before.size(), json.size() - before.size() - depth);
}

}  // namespace

std::vector<v1::SettingChange> ChangesBetween(const v1::Job& before, const v1::Job& after,
                                              const std::vector<std::string>& paths) {
  std::vector<v1::SettingChange> changes;
  for (const std::string& path : paths) {
    const LiveSetting* setting = Find(path);
    if (!setting->seen_by_steps && !setting->seen_by_rules) continue;
    v1::SettingChange change;
    change.set_path(path);
    change.set_old_value(ValueOf(*setting, before));
    change.set_new_value(ValueOf(*setting, after));
    if (change.old_value() != change.new_value()) changes.push_back(std::move(change));
  }
  return changes;
}

absl::StatusOr<std::vector<std::string>> UpdatePaths(const v1::UpdateJobRequest& request) {
  std::vector<std::string> paths;
  std::vector<FieldViolation> violations;
  if (request.update_mask().paths().empty()) {
    for (const LiveSetting& setting : kLiveSettings) {
      if (setting.is_set(request.job())) paths.push_back(setting.path);
    }
  }
  for (const std::string& path : request.update_mask().paths()) {
    if (Find(path) == nullptr) {
      violations.push_back(
          {"update_mask", absl::StrCat(Quoted(path), " cannot be changed; allowed: ", Allowed())});
    } else if (std::find(paths.begin(), paths.end(), path) == paths.end()) {
      paths.push_back(path);
    }
  }
  if (paths.empty() && violations.empty()) {
    violations.push_back({"update_mask", absl::StrCat("nothing to change; allowed: ", Allowed())});
  }
  if (!violations.empty()) return InvalidFields(violations);
  return paths;
}

void ApplyPaths(const v1::Job& from, const std::vector<std::string>& paths, v1::Job* to) {
  for (const std::string& path : paths) Find(path)->copy(from, to);
  train::FillDefaults(to);
}

bool StepsSee(const std::vector<std::string>& paths) {
  return std::any_of(paths.begin(), paths.end(),
                     [](const std::string& path) { return Find(path)->seen_by_steps; });
}

bool RulesSee(const std::vector<std::string>& paths) {
  return std::any_of(paths.begin(), paths.end(),
                     [](const std::string& path) { return Find(path)->seen_by_rules; });
}

v1::Job RequestedPart(const v1::Job& job) {
  v1::Job part;
  part.set_display_name(job.display_name());
  *part.mutable_labels() = job.labels();
  if (job.has_task()) *part.mutable_task() = job.task();
  if (job.has_model()) *part.mutable_model() = job.model();
  if (job.has_optimizer()) *part.mutable_optimizer() = job.optimizer();
  if (job.has_clipping()) *part.mutable_clipping() = job.clipping();
  *part.mutable_shadow_clips() = job.shadow_clips();
  if (job.has_training()) *part.mutable_training() = job.training();
  if (job.has_evaluation()) *part.mutable_evaluation() = job.evaluation();
  part.set_statistics_level(job.statistics_level());
  if (job.has_diagnostics()) *part.mutable_diagnostics() = job.diagnostics();
  *part.mutable_rules() = job.rules();
  *part.mutable_custom_rules() = job.custom_rules();
  if (job.has_seed()) part.set_seed(job.seed());
  if (job.has_ladder()) *part.mutable_ladder() = job.ladder();
  if (job.has_fault_injection()) *part.mutable_fault_injection() = job.fault_injection();
  return part;
}

std::vector<std::string> DifferingFields(const v1::Job& a, const v1::Job& b) {
  std::vector<std::string> differing;
  const google::protobuf::Descriptor& type = *v1::Job::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = type.field(i);
    google::protobuf::util::MessageDifferencer differencer;
    differencer.set_message_field_comparison(google::protobuf::util::MessageDifferencer::EQUAL);
    if (!differencer.CompareWithFields(a, b, {field}, {field})) {
      differing.push_back(field->name());
    }
  }
  return differing;
}

uint64_t SeedOf(absl::string_view job_id) {
  // 53 bits: exact also where a reader keeps numbers as doubles.
  return Fingerprint(job_id) >> 11;
}

}  // namespace gradwatch::jobs
