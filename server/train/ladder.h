#ifndef GRADWATCH_SERVER_TRAIN_LADDER_H_
#define GRADWATCH_SERVER_TRAIN_LADDER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "gradwatch/v1/job.pb.h"
#include "server/base/export.h"
#include "server/stats/estimators.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::train {

// Decides what is done about bad steps; v1::ResponseLadder states the rules. It knows losses and
// norms only: whoever trains skips, lowers and rolls back as it says.
//
// For each step: WhatIsBad when it is finite, then exactly one of Good and Bad.
// Threads: one at a time. Good and WhatIsBad of a good step allocate nothing once 128 steps were
// good.
class GRADWATCH_ENGINE_API Ladder {
 public:
  enum class Action { kSkip, kLowerRate, kRollBack, kStop };

  // What is normal, learnt from good steps only.
  struct Estimates {
    static constexpr int kGoodSteps = 128;
    stats::Window losses{kGoodSteps};
    stats::Window norms{kGoodSteps};
  };

  // `spec` has its defaults filled in.
  explicit Ladder(const v1::ResponseLadder& spec) : spec_(spec) {}

  const v1::ResponseLadder& spec() const { return spec_; }

  // Value and limit when a finite step is bad, as "loss 812 passes 2.1, 4 times …"; empty when it
  // is good.
  std::string WhatIsBad(double loss, double norm) const;

  // A step that was applied.
  void Good(double loss, double norm);

  // A step that was not: the rung that it leads to. `rate_can_fall`: a lower rate is allowed;
  // `has_checkpoint`: there is something to go back to.
  Action Bad(bool rate_can_fall, bool has_checkpoint);

  // Fewer than calm_steps good steps since the last bad one.
  bool in_episode() const { return in_episode_; }
  // Whether this episode went back before.
  bool went_back() const { return went_back_; }

  // The rate before it was lowered; after so many good steps it is due again. None: nothing was
  // lowered, or ForgetRate was called since.
  void NoteRate(double before);
  void ForgetRate();
  std::optional<double> RateDue() const;
  // Lowering it in this episode was wrong: the rate before, none when it was not lowered, or when
  // ForgetRate was called since. It is forgotten; what earlier episodes lowered stays due.
  std::optional<double> TakeBackRate();

  // Going back brings back what was normal then.
  const Estimates& estimates() const { return estimates_; }
  void Restore(const Estimates& estimates);

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  double LossLimit() const;

  const v1::ResponseLadder spec_;
  Estimates estimates_;
  std::optional<double> first_loss_;
  std::optional<double> rate_before_;
  int64_t good_in_a_row_ = 0;
  // Of the present episode.
  bool in_episode_ = false;
  bool rate_was_lowered_ = false;
  bool went_back_ = false;
  std::optional<double> rate_before_episode_;  // When the episode lowered it.
  int64_t tolerated_ = 0;                      // Bad steps on the present rung.
  // Of the job.
  int64_t rate_cuts_ = 0;
  int64_t rollbacks_ = 0;
};

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_LADDER_H_
