#include "server/jobs/intervention_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gradwatch::jobs {

InterventionLog::Entry InterventionLog::Add(absl::string_view job, v1::Intervention intervention,
                                            bool told) {
  MutexLock lock(&mu_);
  ++total_;
  intervention.set_name(absl::StrCat(job, "/interventions/", total_));
  ++counts_[intervention.kind()];
  kept_.push_back(std::make_shared<const v1::Intervention>(std::move(intervention)));
  if (kept_.size() > kKeptMax) kept_.pop_front();
  if (told && told_ == total_ - 1) told_ = total_;
  untold_ = told_ < total_;
  return kept_.back();
}

void InterventionLog::TakeUntold(google::protobuf::RepeatedPtrField<v1::Intervention>* told) {
  if (!untold_) return;
  MutexLock lock(&mu_);
  const auto count = std::min(static_cast<size_t>(total_ - told_), kept_.size());
  for (size_t i = kept_.size() - count; i < kept_.size(); ++i) *told->Add() = *kept_[i];
  told_ = total_;
  untold_ = false;
}

InterventionLog::View InterventionLog::After(int64_t number, size_t entries_max) const {
  MutexLock lock(&mu_);
  View view;
  view.forgotten = total_ - static_cast<int64_t>(kept_.size());
  const int64_t first =
      std::clamp<int64_t>(number - view.forgotten, 0, static_cast<int64_t>(kept_.size()));
  const size_t count = std::min(kept_.size() - static_cast<size_t>(first), entries_max);
  view.kept.assign(kept_.begin() + first, kept_.begin() + first + static_cast<int64_t>(count));
  return view;
}

int64_t InterventionLog::total() const {
  MutexLock lock(&mu_);
  return total_;
}

InterventionLog::Entry InterventionLog::newest() const {
  MutexLock lock(&mu_);
  return kept_.empty() ? nullptr : kept_.back();
}

std::map<v1::Intervention::Kind, int64_t> InterventionLog::CountByKind() const {
  MutexLock lock(&mu_);
  return counts_;
}

}  // namespace gradwatch::jobs
