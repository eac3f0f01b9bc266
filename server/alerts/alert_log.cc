#include "server/alerts/alert_log.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"

namespace gradwatch::alerts {

int64_t AlertLog::Add() {
  if (static_cast<int>(alerts_.size()) >= alerts_max_) ForgetOne();
  ++last_number_;
  alerts_.emplace_back();
  alerts_.back().set_name(absl::StrCat(job_name_, "/alerts/", last_number_));
  numbers_.push_back(last_number_);
  return last_number_;
}

void AlertLog::ForgetOne() {
  const auto resolved = std::find_if(alerts_.begin(), alerts_.end(), [](const v1::Alert& alert) {
    return alert.state() == v1::Alert::STATE_RESOLVED;
  });
  const auto victim = resolved == alerts_.end() ? alerts_.begin() : resolved;
  numbers_.erase(numbers_.begin() + (victim - alerts_.begin()));
  alerts_.erase(victim);
  ++forgotten_;
}

v1::Alert* AlertLog::Find(int64_t number) {
  const auto found = std::lower_bound(numbers_.begin(), numbers_.end(), number);
  if (found == numbers_.end() || *found != number) return nullptr;
  return &alerts_[static_cast<size_t>(found - numbers_.begin())];
}

void AlertLog::SaveState(stats::StateWriter* writer) const {
  writer->Int(last_number_);
  writer->Int(forgotten_);
  writer->Int(std::ssize(alerts_));
  for (size_t i = 0; i < alerts_.size(); ++i) {
    writer->Int(numbers_[i]);
    writer->Bytes(alerts_[i].SerializeAsString());
  }
}

void AlertLog::LoadState(stats::StateReader* reader) {
  last_number_ = reader->Int();
  forgotten_ = reader->Int();
  const int64_t count = reader->Int();
  alerts_.clear();
  numbers_.clear();
  if (count < 0 || count > alerts_max_) reader->Fail();
  for (int64_t i = 0; i < count && reader->ok(); ++i) {
    numbers_.push_back(reader->Int());
    const absl::string_view bytes = reader->Bytes();
    if (!alerts_.emplace_back().ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      reader->Fail();
    }
  }
}

}  // namespace gradwatch::alerts
