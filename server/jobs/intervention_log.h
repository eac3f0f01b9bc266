#ifndef GRADWATCH_SERVER_JOBS_INTERVENTION_LOG_H_
#define GRADWATCH_SERVER_JOBS_INTERVENTION_LOG_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "gradwatch/v1/intervention.pb.h"
#include "server/base/mutex.h"

namespace gradwatch::jobs {

// What changed the run of one job since it was submitted: the newest kKeptMax, oldest first.
// Thread-safe.
class InterventionLog {
 public:
  static constexpr size_t kKeptMax = 1000;

  using Entry = std::shared_ptr<const v1::Intervention>;

  // Appends `intervention` and names it; `job` is "jobs/{id}". `told`: the record of a step that is
  // being made has it already.
  Entry Add(absl::string_view job, v1::Intervention intervention, bool told);

  // Appends those that no step's record has told, and takes them as told. Costs nothing when there
  // is none.
  void TakeUntold(google::protobuf::RepeatedPtrField<v1::Intervention>* interventions);

  struct View {
    std::vector<Entry> kept;  // Those with numbers above the one that was asked for.
    int64_t forgotten = 0;    // Numbers 1 to this are no longer kept.
  };
  View After(int64_t number, size_t entries_max) const;

  int64_t total() const;  // The forgotten ones too.
  Entry newest() const;   // Null when there is none.
  std::map<v1::Intervention::Kind, int64_t> CountByKind() const;

 private:
  // Leaf lock.
  mutable Mutex mu_;
  std::deque<Entry> kept_ ABSL_GUARDED_BY(mu_);
  int64_t total_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t told_ ABSL_GUARDED_BY(mu_) = 0;  // Numbers 1 to this.
  std::map<v1::Intervention::Kind, int64_t> counts_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> untold_{false};
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_INTERVENTION_LOG_H_
