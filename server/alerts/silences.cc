#include "server/alerts/silences.h"

#include <algorithm>
#include <cstdint>

#include "proto/support/timestamp.h"

namespace gradwatch::alerts {

void Silences::Set(const v1::Silence& silence) {
  Remove(silence.rule_name());
  const auto place = std::find_if(silences_.begin(), silences_.end(), [&](const auto& other) {
    return other.rule_name() > silence.rule_name();
  });
  silences_.insert(place, silence);
}

bool Silences::Remove(absl::string_view rule_name) {
  const auto found = std::find_if(silences_.begin(), silences_.end(), [&](const auto& silence) {
    return silence.rule_name() == rule_name;
  });
  if (found == silences_.end()) return false;
  silences_.erase(found);
  return true;
}

std::vector<std::string> Silences::RemoveEnded(absl::Time now) {
  std::vector<std::string> ended;
  for (const v1::Silence& silence : silences_) {
    if (FromTimestamp(silence.expire_time()) <= now) ended.push_back(silence.rule_name());
  }
  for (const std::string& rule_name : ended) Remove(rule_name);
  return ended;
}

void Silences::Mark(v1::Alert* alert) const {
  alert->clear_silenced_until();
  for (const v1::Silence& silence : silences_) {
    if (silence.rule_name() == alert->rule_name()) {
      *alert->mutable_silenced_until() = silence.expire_time();
    }
  }
}

void Silences::SaveState(stats::StateWriter* writer) const {
  writer->Int(std::ssize(silences_));
  for (const v1::Silence& silence : silences_) writer->Bytes(silence.SerializeAsString());
}

void Silences::LoadState(stats::StateReader* reader) {
  silences_.clear();
  const int64_t count = reader->Int();
  for (int64_t i = 0; i < count && reader->ok(); ++i) {
    const absl::string_view bytes = reader->Bytes();
    const bool good =
        silences_.emplace_back().ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
    if (!good) reader->Fail();
  }
}

}  // namespace gradwatch::alerts
