#ifndef GRADWATCH_SERVER_ALERTS_SILENCES_H_
#define GRADWATCH_SERVER_ALERTS_SILENCES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gradwatch/v1/alert.pb.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {

// Which rules of one job are silenced, and until when. One thread at a time.
class Silences {
 public:
  // By name of the rule.
  const std::vector<v1::Silence>& all() const { return silences_; }

  // Replaces an earlier one of the same rule.
  void Set(const v1::Silence& silence);
  // False when there is none.
  bool Remove(absl::string_view rule_name);
  // Those whose time is over by `now`; returns the names of their rules.
  std::vector<std::string> RemoveEnded(absl::Time now);

  // Sets or clears silenced_until of an alert, by its rule.
  void Mark(v1::Alert* alert) const;

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  std::vector<v1::Silence> silences_;
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_SILENCES_H_
