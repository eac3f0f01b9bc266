#ifndef GRADWATCH_SERVER_TRAIN_STEP_COMPARISON_H_
#define GRADWATCH_SERVER_TRAIN_STEP_COMPARISON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/nn/buffer.h"
#include "server/nn/network_config.h"

namespace gradwatch::train {

// Compares a step with what was before: its gradient with that of the step before, its weights with
// the first ones (Diagnostics.compare_steps). Where a step went straight along its gradient, two
// gradients give the curvature along it: for s = -c g, s'Hs / s's is about (g_now - g)'s / s's =
// (1 - g_now'g / g'g) / c. Keeps a copy of each, and allocates in its
// constructor only.
//
// In each step: Take for every chunk of the gradients, by any threads, each chunk once; then, by
// one thread, FinishGradients and one of the two that record distances; then NoteStraightStep for a
// step that was one. Forget for a step in which nothing is compared.
template <typename S>
class StepComparison {
 public:
  // `weights` are the first ones, laid out as `parameters` say. `chunks` is how many chunks the
  // gradients come in.
  StepComparison(absl::Span<const S> weights, const std::vector<nn::Parameter>& parameters,
                 size_t chunks);

  // `gradient` is chunk number `index`, at `offset` in the flat buffer; it replaces that of the
  // step before.
  void Take(size_t index, int64_t offset, absl::Span<const S> gradient);

  // Writes the cosines, and the curvature along the step before. `chunks_of` says how many chunks
  // each parameter has, `norms` the norm of its gradient. Cosines of tensors only where `record`
  // has tensors.
  void FinishGradients(absl::Span<const size_t> chunks_of, absl::Span<const double> norms,
                       v1::StepStats* record);

  // The step before was not taken: the next one has nothing to be compared with.
  void Forget() {
    has_previous_ = false;
    ForgetStep();
  }

  // This step changed the weights by -`factor` times its gradient, which holds until the next
  // FinishGradients.
  void NoteStraightStep(double factor) { step_factor_ = factor; }
  // What lies between the last two gradients is more than that.
  void ForgetStep() { step_factor_ = 0.0; }
  // 0 when there is none; for a checkpoint.
  double step_factor() const { return step_factor_; }

  absl::Span<const S> first_weights() const {
    return absl::MakeConstSpan(first_.data(), first_.size());
  }

  // Writes the distance of each parameter from its first values.
  void RecordDistances(absl::Span<const double> distances, v1::StepStats* record) const;
  // The same where nobody measured them.
  void MeasureDistances(absl::Span<const S> weights, v1::StepStats* record);

  // The last gradient, for a checkpoint; empty when there is none. Load says whether `bytes` fit.
  std::string Save() const;
  bool Load(absl::string_view bytes);

  // What it holds for so many weights in so many chunks, in bytes; saturates.
  static int64_t MemoryBytesOf(int64_t weights, int64_t chunks);

 private:
  absl::Span<const S> Part(const nn::Buffer<S>& flat, size_t parameter) const;

  const std::vector<nn::Parameter> parameters_;
  nn::Buffer<S> first_;
  nn::Buffer<S> previous_;
  std::vector<double> first_norms_;
  std::vector<double> previous_norms_;
  std::vector<double> products_;  // Of each chunk with the one before it in time.
  std::vector<double> distances_;
  double first_norm_ = 0.0;
  double step_factor_ = 0.0;
  bool has_previous_ = false;
};

extern template class StepComparison<float>;
extern template class StepComparison<double>;

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_STEP_COMPARISON_H_
