#ifndef GRADWATCH_SERVER_NN_NETWORK_H_
#define GRADWATCH_SERVER_NN_NETWORK_H_

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/base/batch.h"
#include "server/base/thread_team.h"
#include "server/nn/network_config.h"

namespace gradwatch::nn {

// How much ForwardBackward measures on its way. It never changes the loss or a gradient by a bit.
enum class Detail {
  kNone,
  kGrowth,  // State-gradient and carry norms.
  kFull,    // Also carry ratios, and RMS, extremes and saturation of the states.
};

constexpr int kGatesMax = 4;

// What one recurrent layer did at each time step of the last ForwardBackward. Norms and means run
// over the valid rows only and are summed in double. What does not exist is NaN. Spans are empty
// where the detail did not ask for them; they are valid until the next call on the network.
struct LayerTrace {
  // ||delta_t||, Frobenius over valid rows x H, t = 0..T-1. delta_t is the total gradient at h_t
  // (from t + 1, from the layer above or the read-out); for the LSTM jointly with the gradient at
  // c_t that comes through t + 1 only: the adjoint of the state (h_t, c_t) that step t + 1 reads.
  absl::Span<const double> state_gradient_norm;
  // ||carry_t||, t = 0..T-2: the part of delta_t that arrives from t + 1, before the local term is
  // added. NaN where truncation cuts.
  absl::Span<const double> carry_norm;
  // Empty, or the norms are those of some time steps only: of the first, the last and others in
  // between. strides[i] says how many time steps norm i is before norm i + 1. So it is at
  // Detail::kGrowth for a batch of one row whose loss is at the last step, up to 128 units and
  // without truncation: every carry is the adjoint then, and the ratio over a stride the product of
  // its ratios. Strides double from 1 at the end to 16; they are 1 once the norm is below 1e-20.
  absl::Span<const int> strides;

  // From here on only at Detail::kFull.
  // carry_norm[t] / state_gradient_norm[t + 1], t = 0..T-2. NaN where truncation cuts, or where one
  // of the two norms is below 1e-30 or not finite.
  absl::Span<const double> carry_ratio;
  absl::Span<const double> hidden_gradient_norm;  // ||dL/dh_t|| alone, t = 0..T-1.
  absl::Span<const double> hidden_rms;            // sqrt(mean h^2), t = 0..T-1.
  absl::Span<const double> hidden_max;            // max |h|, t = 0..T-1.
  absl::Span<const double> cell_rms;              // LSTM: sqrt(mean c^2); empty for other cells.
  absl::Span<const double> cell_max;              // LSTM: max |c|.

  // Share of all valid (t, row, unit) with |h| > 0.99; for ReLU, which has no upper end, with h =
  // 0.
  double saturated_share = std::numeric_limits<double>::quiet_NaN();
  // RNN ReLU: share of the units that are 0 at every (t, row). NaN for other cells.
  double dead_share = std::numeric_limits<double>::quiet_NaN();
  // Gates below: 4 for the LSTM, 3 for the GRU, 1 for the sigmoid RNN (its h), else 0.
  int gates = 0;
  // Share of the gate's values below 0.05 and above 0.95; of the candidate (GRU n, LSTM g), whose
  // values lie between -1 and 1, of their magnitudes.
  std::array<double, kGatesMax> gate_closed{};
  std::array<double, kGatesMax> gate_open{};
  // Mean of the gate's values (of the candidate's magnitudes), within 2e-6; and the share of the
  // units whose own mean is below 0.05.
  std::array<double, kGatesMax> gate_mean{};
  std::array<double, kGatesMax> gate_closed_units{};
  // How many time steps a unit keeps its state: -1 / ln(mean of its f, GRU z), infinite from a mean
  // of 1; the median over units, and the largest. NaN for the plain cells.
  double keep_time_constant = std::numeric_limits<double>::quiet_NaN();
  double keep_time_constant_max = std::numeric_limits<double>::quiet_NaN();
  // Mean over all valid (t, row, unit) of phi'(a) / phi'(0), of the function that makes the state:
  // the cell's own, tanh(c) of the LSTM, n of the GRU; ReLU: the share of h above 0.
  double activation_slope = std::numeric_limits<double>::quiet_NaN();
  // Mean cosine over the pairs of rows between their h after their last valid step; rows of zeros
  // are left out. NaN with fewer than two others.
  double state_similarity = std::numeric_limits<double>::quiet_NaN();
  // ln(RMS of h after the last valid step / RMS of h before the first) over the rows that did not
  // restart; the same of c for the LSTM. NaN when there is no such row, or its state was zero.
  double hidden_drift = std::numeric_limits<double>::quiet_NaN();
  double cell_drift = std::numeric_limits<double>::quiet_NaN();
};

// Where the first NaN or infinity came up.
struct NonFinite {
  enum class Stage { kInput, kHidden, kReadout, kLoss, kBackward, kWeightGradient };
  Stage stage = Stage::kInput;
  // "input", "h_l0", "c_l0", "readout", "loss", "readout_gradient", "gate_gradient_l0" (gradient at
  // the pre-activations), or a parameter's name.
  std::string tensor;
  int layer = -1;          // -1 where no layer applies.
  int64_t time_step = -1;  // -1 where no time step applies.
};

// A recurrent network with its weights, gradients and work memory, in float or double.
//
// Everything is allocated by the constructor: the other calls allocate nothing, unless they say so.
// Same build, config, weights, state and batch: same bits. Detail and threads change no bit.
// Threads: one at a time, and a team's members on its behalf.
template <typename S>
class Network {
 public:
  // Plans for batches of at most `rows_max` x `time_steps_max`. Weights and state are zero.
  // Requires a config as NetworkConfig says it; input that a user gave is checked before.
  // The threads of `team` share the work of every run, as many as it is set to; null: the calling
  // thread alone. Their number changes no bit.
  Network(const NetworkConfig& config, int64_t rows_max, int64_t time_steps_max,
          ThreadTeam* team = nullptr);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const NetworkConfig& config() const;
  const std::vector<Parameter>& parameters() const;

  // Draws all weights; each tensor from its own stream (seed, name), in double, then rounded.
  // Allocates.
  void Initialize(uint64_t seed);

  // The flat buffers, laid out as parameters() says. Weights may be changed between calls.
  absl::Span<S> weights();
  absl::Span<const S> weights() const;
  absl::Span<S> gradients();
  absl::Span<const S> gradients() const;

  // Runs the batch without looking at its targets; read outputs() after.
  // Every run moves the carried state on; see state().
  void Predict(const Batch& batch);

  // Loss of the batch: weighted mean over positions (mean squared error is first averaged over the
  // outputs of a position), summed in double; 0 if no position has weight. Natural logarithm.
  double Forward(const Batch& batch);

  // The same loss, and its exact gradient in gradients() (overwritten).
  double ForwardBackward(const Batch& batch, Detail detail = Detail::kNone);

  // Each row's part of the loss of the last Forward or ForwardBackward, [rows]: they add up to it.
  void RowLosses(absl::Span<double> losses) const;

  // The read-out of the last run, in front of the loss: O values of `row` at time step `t`. With a
  // loss at the last step there is one per row and `t` is not looked at. Requires a valid position.
  absl::Span<const S> output(int64_t t, int64_t row) const;

  // h of one layer in the last run, H values of a valid (t, row).
  absl::Span<const S> hidden_state(int layer, int64_t t, int64_t row) const;

  // Per layer, of the last ForwardBackward.
  absl::Span<const LayerTrace> traces() const;

  // Where the last ForwardBackward first left the finite numbers, in computation order: input, h
  // and c by layer and time step, read-out, loss, backward by falling layer and time step, weight
  // gradients. Nothing when all is finite. Scans all buffers and allocates: ask when it matters.
  std::optional<NonFinite> FirstNonFinite() const;

  // The state that the next run starts from, for rows that do not restart: per layer h
  // [rows_max, H] and, for the LSTM, c [rows_max, H]. After a run, row b holds the state after its
  // last valid time step. Copy it out and back in to resume exactly.
  absl::Span<S> state();
  absl::Span<const S> state() const;
  void ResetState();  // To zero.

  // From the next run on, NetworkConfig::truncation is this; at least 0. Not while chunk states are
  // held.
  void SetTruncation(int64_t truncation);

  // For gradient checks under truncation: from now on each chunk begins from the states that the
  // last run had there, whatever the weights are, as the truncated gradient supposes. Allocates.
  void HoldChunkStates();
  void ReleaseChunkStates();

  // Bytes held, as MemoryBytesOf.
  int64_t memory_bytes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_NETWORK_H_
