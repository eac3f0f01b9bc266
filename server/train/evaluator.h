#ifndef GRADWATCH_SERVER_TRAIN_EVALUATOR_H_
#define GRADWATCH_SERVER_TRAIN_EVALUATOR_H_

#include <vector>

#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/base/batch.h"
#include "server/data/source.h"
#include "server/nn/buffer.h"
#include "server/nn/network.h"

namespace gradwatch::train {

// Runs a job's network over its held-out examples. The network's carried state
// is put aside meanwhile and put back, so training goes on as if nothing had
// been. Allocates in the constructor, and with the first evaluation for its
// batch. Threads: one at a time.
template <typename S>
class Evaluator {
 public:
  // Both must outlive the evaluator.
  Evaluator(const v1::Task& task, data::Source* source, nn::Network<S>* network);

  // Means over all positions that count; without any the loss is NaN and the rest absent. `step` is
  // left to the caller.
  v1::EvaluationResult Run();

 private:
  struct Sums {
    double weight = 0.0;
    double loss = 0.0;      // Weighted.
    int64_t positions = 0;  // With weight.
    int64_t right = 0;      // Of classes.
    int64_t solved = 0;     // Of values: mean squared error of the position below 0.04.
    int64_t examples = 0;
  };

  void AddBatch(Sums* sums);
  void AddPosition(int64_t t, int64_t row, size_t index, Sums* sums);

  const bool adding_;
  data::Source* const source_;
  nn::Network<S>* const network_;
  nn::Buffer<S> state_aside_;
  std::vector<double> squares_;  // Weighted squared errors by output.
  Batch batch_;
};

extern template class Evaluator<float>;
extern template class Evaluator<double>;

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_EVALUATOR_H_
