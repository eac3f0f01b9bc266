#ifndef GRADWATCH_SERVER_TRAIN_RECOVERY_POINTS_H_
#define GRADWATCH_SERVER_TRAIN_RECOVERY_POINTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/nn/buffer.h"
#include "server/stats/state_bytes.h"
#include "server/train/ladder.h"

namespace gradwatch::train {

// The checkpoints in memory that a ladder goes back to: some that were proven good, and one
// candidate that still has to be. The newest good one is there to lose little by going back; those
// before it are `apart` steps or more from each other, in case that the newest was spoilt without
// anybody noticing. Buffers are taken by the constructor and exchanged, never copied among each
// other. Threads: one at a time.
template <typename S>
class RecoveryPoints {
 public:
  struct Point {
    int64_t step = 0;  // The next step then.
    int64_t updates_applied = 0;
    int64_t steps_taken_back = 0;  // By roll backs, until then.
    nn::Buffer<S> weights;
    nn::Buffer<S> optimizer_state;
    std::vector<std::string> clip_states;
    Ladder::Estimates estimates;
  };

  // kept_max, apart >= 1; the others are sizes.
  RecoveryPoints(int kept_max, int64_t apart, int64_t weights, int64_t optimizer_state);

  // Starts a candidate and returns it for the caller to fill, but not its buffers: those are copied
  // from here. False, and there is none, when a number is NaN or infinite.
  bool Propose(absl::Span<const S> weights, absl::Span<const S> optimizer_state);
  bool has_candidate() const { return good_since_ >= 0; }
  Point& candidate() { return points_.back(); }
  // The candidate is good: at once, or once `needed` good steps followed it. It takes the place of
  // the newest when that is too near to the one before it; else, when all are in use, of the
  // oldest.
  void Prove();
  void NoteGood(int64_t needed);
  void DropCandidate() { good_since_ = -1; }

  bool empty() const { return kept_ == 0; }
  const Point& newest() const { return points_[static_cast<size_t>(kept_ - 1)]; }
  // Unless it is the only one.
  void DropNewest() {
    if (kept_ > 1) --kept_;
  }
  // The newest, or with `drop_first` the one that would be it after DropNewest.
  const Point& next(bool drop_first) const {
    return points_[static_cast<size_t>(drop_first && kept_ > 1 ? kept_ - 2 : kept_ - 1)];
  }

  void SaveState(stats::StateWriter* writer) const;
  // False when it does not fit; then nothing is worth anything.
  bool LoadState(stats::StateReader* reader);

 private:
  bool NewestIsTooNear() const;
  // Makes what is no longer needed the newest: an unused one, or the oldest.
  void MakeRoom();

  const int64_t apart_;
  // Good ones, oldest first; then unused ones; the last is the candidate.
  std::vector<Point> points_;
  int kept_ = 0;
  int64_t good_since_ = -1;  // Good steps since the candidate was taken; -1: there is none.
};

extern template class RecoveryPoints<float>;
extern template class RecoveryPoints<double>;

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_RECOVERY_POINTS_H_
