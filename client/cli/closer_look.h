#ifndef GRADWATCH_CLIENT_CLI_CLOSER_LOOK_H_
#define GRADWATCH_CLIENT_CLI_CLOSER_LOOK_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "client/cli/step_series.h"
#include "google/protobuf/repeated_field.h"
#include "gradwatch/v1/job.pb.h"
#include "gradwatch/v1/stats.pb.h"

namespace gradwatch::cli {

using ParameterList = google::protobuf::RepeatedPtrField<v1::ParameterInfo>;

// The statistics that only some jobs record, in bounded memory: gates, layers, recurrent matrices,
// the probe, lengths, noise.
class CloserLook {
 public:
  // One gate, in PyTorch's order; a plain cell counts as one gate where it has a recurrent matrix.
  struct Gate {
    Gate(int64_t first, int64_t last)
        : recurrent_norm(first, last),
          input_norm(first, last),
          mean(first, last),
          sigma_max(first, last),
          spectral_radius(first, last) {}
    StepSeries recurrent_norm;   // Of the gradient, all layers together, in L2.
    StepSeries input_norm;       // See recurrent_norm.
    StepSeries mean;             // Over the layers.
    StepSeries sigma_max;        // The largest of the layers.
    StepSeries spectral_radius;  // The largest of the layers.
  };

  struct Layer {
    Layer(int64_t first, int64_t last)
        : keep_time(first, last),
          keep_time_max(first, last),
          slope(first, last),
          similarity(first, last) {}
    StepSeries keep_time;
    StepSeries keep_time_max;
    StepSeries slope;
    StepSeries similarity;
  };

  // What one layer's probe saw in one step. Profiles begin at lag 0 and are relative to it.
  struct Probe {
    int64_t step = 0;
    std::vector<double> profile;
    // The gradient at the state in the same step, every loss in it; empty where it is not recorded.
    std::vector<double> state_profile;
    std::optional<double> decay_factor;
    std::optional<int> horizon;
  };
  struct LayerProbes {
    std::optional<Probe> first;
    std::optional<Probe> newest;
  };

  // The mean loss of the rows whose lengths lie around a length.
  struct LengthLoss {
    double rows = 0;
    double sum = 0;
  };
  using LossByLength = std::map<int, LengthLoss>;

  // Of recorded steps `first` to `last` of a job with these parameters.
  CloserLook(int64_t first, int64_t last, const ParameterList& parameters);

  void Add(const v1::StepStats& step);

  const std::vector<Gate>& gates() const { return gates_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<LayerProbes>& probes() const { return probes_; }
  // By the middle of each group of lengths, in the first and in the last tenth of the steps.
  const LossByLength& early_lengths() const { return early_lengths_; }
  const LossByLength& late_lengths() const { return late_lengths_; }
  const StepSeries& noise_scale() const { return noise_scale_; }

 private:
  void AddGateNorms(const v1::StepStats& step);
  void AddLayers(const v1::StepStats& step);
  void AddRecurrent(const v1::StepStats& step);
  void AddProbes(const v1::StepStats& step);
  void AddLengths(const v1::StepStats& step);
  Gate& GateAt(int gate);
  Layer& LayerAt(int layer);

  int64_t first_;
  int64_t last_;
  std::vector<bool> is_recurrence_;  // For each parameter.
  std::vector<Gate> gates_;
  std::vector<Layer> layers_;
  std::vector<LayerProbes> probes_;
  LossByLength early_lengths_;
  LossByLength late_lengths_;
  StepSeries noise_scale_;
};

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_CLOSER_LOOK_H_
