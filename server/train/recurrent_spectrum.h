#ifndef GRADWATCH_SERVER_TRAIN_RECURRENT_SPECTRUM_H_
#define GRADWATCH_SERVER_TRAIN_RECURRENT_SPECTRUM_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "gradwatch/v1/stats.pb.h"
#include "server/base/thread_team.h"
#include "server/nn/buffer.h"
#include "server/nn/network_config.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::train {

// Measures the recurrent matrices of a network, gate by gate (Diagnostics.recurrent_every_steps).
// Allocates in its constructor only. Threads: one at a time, and a team's members on its behalf;
// their number changes no bit.
class RecurrentSpectrum {
 public:
  RecurrentSpectrum(const nn::NetworkConfig& config, const std::vector<nn::Parameter>& parameters,
                    ThreadTeam* team);

  // Adds one entry for each layer to `record`.
  template <typename S>
  void Measure(absl::Span<const S> weights, v1::StepStats* record);

  // Where the iterations stopped.
  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

  // What it holds in bytes; saturates.
  static int64_t MemoryBytesOf(const nn::NetworkConfig& config, int threads);

 private:
  // Power iterations: of the first measurement, and of the others, which go on from there.
  static constexpr int kFirstIterations = 32;
  static constexpr int kIterations = 4;

  // One gate of one layer.
  struct Block {
    int64_t offset = 0;  // In the flat buffer of weights.
    double sigma_max = 0.0;
    double radius = 0.0;
  };

  absl::Span<double> VectorOf(size_t block);

  const int64_t hidden_;
  const int gates_;
  ThreadTeam* const team_;
  std::vector<Block> blocks_;      // Layer by layer.
  nn::Buffer<double> vectors_;     // [blocks, H]
  nn::Buffer<double> workspaces_;  // [threads, SpectrumWorkspace]
  bool begun_ = false;
};

extern template void RecurrentSpectrum::Measure(absl::Span<const float>, v1::StepStats*);
extern template void RecurrentSpectrum::Measure(absl::Span<const double>, v1::StepStats*);

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_RECURRENT_SPECTRUM_H_
