#include "server/train/trainer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/arithmetic_mode.h"
#include "server/base/range.h"
#include "server/base/status.h"
#include "server/base/thread_team.h"
#include "server/clip/norm.h"
#include "server/clip/policy.h"
#include "server/clip/shadow_clips.h"
#include "server/data/source.h"
#include "server/nn/network.h"
#include "server/stats/gradient_stats.h"
#include "server/stats/growth.h"
#include "server/stats/state_bytes.h"
#include "server/train/evaluator.h"
#include "server/train/flat_bytes.h"
#include "server/train/gradient_noise.h"
#include "server/train/job_network.h"
#include "server/train/ladder.h"
#include "server/train/last_step_probe.h"
#include "server/train/loss_by_length.h"
#include "server/train/optimizer.h"
#include "server/train/recovery_points.h"
#include "server/train/recurrent_spectrum.h"
#include "server/train/schedule.h"
#include "server/train/step_comparison.h"
#include "server/train/step_record.h"

namespace gradwatch::train {
namespace {

// What a trainer holds beyond what grows with the job: messages, names, small
// vectors.
constexpr int64_t kFixedBytes = 64 << 10;

constexpr int64_t kStatisticsStateVersion = 3;

// In multiples of checkpoint_every_steps: how far a ladder's older checkpoints are from each other.
constexpr int64_t kOlderCheckpointsApart = 4;

// Never more than the machine has.
int ThreadsUsefulOf(const nn::NetworkConfig& config, const data::TaskShape& shape) {
  // A system call, and every check of a job comes here.
  static const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::min(cores, nn::ThreadsUsefulOf(config, shape.rows_max, shape.time_steps));
}

// Whether it is time for what is done at every step whose number is a multiple of `every`; 0 never.
bool IsDue(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

nn::Detail DetailOf(v1::StatisticsLevel level) {
  switch (level) {
    case v1::STATISTICS_LEVEL_OFF:
      return nn::Detail::kNone;
    case v1::STATISTICS_LEVEL_FULL:
      return nn::Detail::kFull;
    default:
      return nn::Detail::kGrowth;
  }
}

// All digits, and no more than that takes.
std::string ShortestText(double value) {
  char digits[32];
  return std::string(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
}

// As JSON has it, where numbers of 64 bits are strings.
std::string JsonText(int64_t value) { return absl::StrCat("\"", value, "\""); }

void AddChange(const char* path, std::string before, std::string after, v1::Intervention* action) {
  v1::SettingChange* const change = action->add_changes();
  change->set_path(path);
  change->set_old_value(std::move(before));
  change->set_new_value(std::move(after));
}

template <typename S>
class TrainerOf final : public Trainer {
 public:
  // May throw std::bad_alloc: everything that a job needs is taken here.
  TrainerOf(const v1::Job& job, std::unique_ptr<data::Source> source,
            std::unique_ptr<clip::ClipChain> chain, std::unique_ptr<clip::ShadowClips> shadows);

  int64_t step() const override { return step_; }
  int64_t updates_applied() const override { return updates_applied_; }
  int nonfinite_in_a_row() const override { return nonfinite_in_a_row_; }
  const v1::Job& settings() const override { return job_; }
  const std::vector<v1::ParameterInfo>& parameters() const override { return parameter_infos_; }

  int threads_useful() const override { return team_.threads_max(); }
  void SetThreads(int threads) override { team_.SetThreads(threads); }

  void Step(v1::StepStats* stats) override;
  v1::EvaluationResult Evaluate() override;
  absl::Status ApplySettings(const v1::Job& job) override;
  v1::Checkpoint Save() const override;
  absl::Status Load(const v1::Checkpoint& checkpoint);

 private:
  // A part of the gradients, and what is known of it.
  struct Chunk {
    absl::Span<const S> gradient;
    int64_t offset = 0;                       // In the flat buffer.
    int64_t begin = 0;                        // In its tensor.
    int64_t gate_size = 0;                    // As GateSizeOf.
    std::array<double, nn::kGatesMax> gates;  // Sums of squares.
  };

  bool basic() const { return job_.statistics_level() != v1::STATISTICS_LEVEL_OFF; }
  bool full() const { return job_.statistics_level() == v1::STATISTICS_LEVEL_FULL; }
  bool EvaluationIsDue() const;
  bool ProbeIsDue() const {
    return basic() && IsDue(step_, job_.diagnostics().probe_every_steps());
  }
  bool NoiseIsDue() const {
    return basic() && IsDue(step_, job_.diagnostics().noise_every_steps());
  }
  bool LossAtLastStep() const { return network_.config().loss_at == nn::LossAt::kLastStep; }

  void PlanChunks();
  nn::Detail DetailOfStep() const;
  void Probe(v1::StepStats* stats);
  void MeasureChunk(size_t index);
  void FillGateNorms(absl::Span<const Chunk> chunks, v1::TensorStats* message) const;
  void MeasureGradients(v1::StepStats* stats);
  void MeasureWeights(v1::StepStats* stats);
  void MeasureThroughTime(v1::StepStats* stats);
  void RecordOrigin(v1::StepStats* stats);
  double ClipGradients(v1::StepStats* stats);
  std::optional<double> StraightFactor() const;
  double NormBound(double factor, const v1::StepStats& stats) const;
  // `outlier`: finite, but not to be applied.
  void Update(bool finite, bool outlier, double factor, v1::StepStats* stats);
  void NoteStraightStep(double rate);
  void RecordClipping(v1::StepStats* stats);
  void RecordUpdate(v1::StepStats* stats);
  void RestartBrokenRows();

  // --- The ladder, when the job has one.
  void TakeCheckpoint();
  // `outlier`: what was bad about a finite step.
  void Respond(const std::string& outlier, v1::StepStats* stats);
  void RespondToGood(v1::StepStats* stats);
  // The checkpoint that this episode went back to did not help.
  bool WentBack() const { return ladder_->went_back() && ladder_->in_episode(); }
  double learning_rate() const { return job_.optimizer().learning_rate(); }
  double LoweredRate() const;
  v1::Intervention* AddAction(v1::Intervention::Kind kind, const std::string& cause,
                              v1::StepStats* stats) const;
  void SetRate(double rate, v1::Intervention* action);
  void MoveStepLimit(int64_t steps, v1::Intervention* action);
  void TakeBackSteps(const typename RecoveryPoints<S>::Point& point, v1::Intervention* action);
  void RollBack(const std::string& cause, v1::StepStats* stats);
  bool BatchIsBad();

  absl::Span<const S> Part(absl::Span<const S> flat, size_t parameter) const;
  int64_t GateSizeOf(const nn::Parameter& parameter) const;
  bool LoadStatistics(const v1::Checkpoint& checkpoint);
  bool FitsJob(const v1::Checkpoint& checkpoint) const;

  // Constant after construction, but for what ApplySettings takes over.
  v1::Job job_;
  const std::unique_ptr<data::Source> source_;
  const data::TaskShape shape_;
  ThreadTeam team_;
  nn::Network<S> network_;
  const std::vector<v1::ParameterInfo> parameter_infos_;
  Optimizer<S> optimizer_;
  std::unique_ptr<clip::ClipChain> chain_;
  const std::unique_ptr<clip::ShadowClips> shadows_;
  Evaluator<S> evaluator_;

  int64_t step_ = 0;
  int64_t updates_applied_ = 0;
  int nonfinite_in_a_row_ = 0;
  std::optional<double> last_finite_norm_;

  std::optional<Ladder> ladder_;
  std::optional<RecoveryPoints<S>> points_;
  int64_t steps_taken_back_ = 0;  // By roll backs, each step once.
  // Absent when the job does not ask for them.
  std::optional<StepComparison<S>> comparison_;
  std::optional<RecurrentSpectrum> spectrum_;
  std::optional<LastStepProbe<S>> probe_;
  std::optional<GradientNoise<S>> noise_;

  // Work memory of one step.
  Batch batch_;
  LossByLength loss_by_length_;
  absl::Span<const clip::PolicyReport> clip_reports_;  // Of the chain.
  std::vector<clip::Block<S>> blocks_;
  std::vector<double> gradient_norms_;
  std::vector<double> clipped_norms_;
  std::vector<double> weight_norms_;
  std::vector<double> change_norms_;
  std::vector<typename Optimizer<S>::Norms> update_norms_;
  std::vector<double> distances_;
  // The gradients, tensor by tensor.
  std::vector<Chunk> chunks_;
  std::vector<size_t> chunks_of_;  // How many a tensor has.
  std::vector<stats::ChunkSummary<S>> chunk_summaries_;
  std::vector<stats::LayerCarry> carries_;
  stats::Growth growth_;
  stats::Log2Histogram histogram_;
};

template <typename S>
TrainerOf<S>::TrainerOf(const v1::Job& job, std::unique_ptr<data::Source> source,
                        std::unique_ptr<clip::ClipChain> chain,
                        std::unique_ptr<clip::ShadowClips> shadows)
    : job_(job),
      source_(std::move(source)),
      shape_(source_->shape()),
      team_(ThreadsUsefulOf(NetworkConfigOf(job, shape_), shape_)),
      network_(NetworkConfigOf(job, shape_), shape_.rows_max, shape_.time_steps, &team_),
      parameter_infos_(ParameterInfosOf(network_.parameters())),
      optimizer_(job.optimizer(), network_.parameters(), &team_),
      chain_(std::move(chain)),
      shadows_(std::move(shadows)),
      evaluator_(job.task(), source_.get(), &network_),
      loss_by_length_(shape_.rows_max) {
  network_.Initialize(job.seed());
  const std::vector<nn::Parameter>& parameters = network_.parameters();
  gradient_norms_.resize(parameters.size());
  clipped_norms_.resize(parameters.size());
  weight_norms_.resize(parameters.size());
  change_norms_.resize(parameters.size());
  update_norms_.resize(parameters.size());
  distances_.resize(parameters.size());
  carries_.resize(static_cast<size_t>(network_.config().layers));
  for (const nn::Parameter& parameter : parameters) {
    const auto offset = static_cast<size_t>(parameter.offset);
    const auto size = static_cast<size_t>(parameter.size);
    blocks_.push_back({parameter.name, network_.gradients().subspan(offset, size),
                       network_.weights().subspan(offset, size), parameter.shape});
  }
  PlanChunks();
  const v1::Diagnostics& diagnostics = job.diagnostics();
  if (diagnostics.compare_steps()) {
    comparison_.emplace(network_.weights(), parameters, chunks_.size());
  }
  if (diagnostics.recurrent_every_steps() > 0) {
    spectrum_.emplace(network_.config(), parameters, &team_);
  }
  if (diagnostics.probe_every_steps() > 0 && !LossAtLastStep()) {
    probe_.emplace(network_, shape_.rows_max * shape_.time_steps);
  }
  if (diagnostics.noise_every_steps() > 0) {
    noise_.emplace(shape_, network_, diagnostics.noise_parts(), &team_);
  }
  if (job.has_ladder()) {
    ladder_.emplace(job.ladder());
    points_.emplace(job.ladder().checkpoints(),
                    kOlderCheckpointsApart * job.ladder().checkpoint_every_steps(),
                    static_cast<int64_t>(network_.weights().size()),
                    static_cast<int64_t>(optimizer_.state().size()));
  }
}

template <typename S>
void TrainerOf<S>::PlanChunks() {
  for (const nn::Parameter& parameter : network_.parameters()) {
    const size_t before = chunks_.size();
    for (int64_t begin = 0; begin < parameter.size; begin += stats::kChunk) {
      Chunk chunk;
      chunk.offset = parameter.offset + begin;
      chunk.begin = begin;
      chunk.gate_size = GateSizeOf(parameter);
      chunk.gradient = network_.gradients().subspan(
          static_cast<size_t>(chunk.offset),
          static_cast<size_t>(std::min(stats::kChunk, parameter.size - begin)));
      chunks_.push_back(chunk);
    }
    chunks_of_.push_back(chunks_.size() - before);
  }
  chunk_summaries_.resize(chunks_.size());
}

// Entries of one gate; 0 for a tensor that has none.
template <typename S>
int64_t TrainerOf<S>::GateSizeOf(const nn::Parameter& parameter) const {
  const int gates = nn::GatesOf(network_.config().cell);
  return parameter.layer < 0 || gates == 1 ? 0 : parameter.size / gates;
}

template <typename S>
bool TrainerOf<S>::EvaluationIsDue() const {
  return IsDue(step_, job_.evaluation().every_steps()) && source_->evaluation_batches() > 0;
}

template <typename S>
nn::Detail TrainerOf<S>::DetailOfStep() const {
  if (ProbeIsDue() && LossAtLastStep()) return nn::Detail::kFull;
  return DetailOf(job_.statistics_level());
}

// Before the step's own pass, which then finds everything as it was.
template <typename S>
void TrainerOf<S>::Probe(v1::StepStats* stats) {
  probe_->Run(&batch_, &network_);
  FillProbe(network_, stats);
}

template <typename S>
void TrainerOf<S>::Step(v1::StepStats* stats) {
  const ArithmeticMode mode;
  ClearRecord(stats);
  stats->set_step(step_);
  if (ladder_.has_value()) TakeCheckpoint();
  if (EvaluationIsDue()) *stats->mutable_evaluation() = Evaluate();

  source_->NextBatch(&batch_);
  stats->set_batch_origin(*std::min_element(batch_.origins.begin(), batch_.origins.end()));
  if (ProbeIsDue() && probe_.has_value()) Probe(stats);
  if (NoiseIsDue()) noise_->Measure(batch_, &network_, stats);
  stats->set_loss(network_.ForwardBackward(batch_, DetailOfStep()));
  if (basic()) loss_by_length_.Record(batch_, network_, stats);
  if (ProbeIsDue() && LossAtLastStep()) FillProbe(network_, stats);

  MeasureGradients(stats);
  MeasureThroughTime(stats);
  const bool finite = std::isfinite(stats->loss()) && std::isfinite(stats->norm_before());
  if (!finite) RecordOrigin(stats);
  std::string outlier;
  if (ladder_.has_value() && finite) {
    outlier = ladder_->WhatIsBad(stats->loss(), stats->norm_before());
  }
  if (basic() && IsDue(step_, job_.diagnostics().recurrent_every_steps())) {
    spectrum_->Measure<S>(network_.weights(), stats);
  }
  const double factor = ClipGradients(stats);
  Update(finite, !outlier.empty(), factor, stats);
  if (!finite) RestartBrokenRows();
  if (ladder_.has_value()) {
    Respond(outlier, stats);
    if (!points_->empty()) stats->set_last_good_step(points_->next(WentBack()).step);
  }

  stats->set_updates_applied(updates_applied_);
  ++step_;
}

template <typename S>
absl::Span<const S> TrainerOf<S>::Part(absl::Span<const S> flat, size_t parameter) const {
  const nn::Parameter& part = network_.parameters()[parameter];
  return flat.subspan(static_cast<size_t>(part.offset), static_cast<size_t>(part.size));
}

// Everything about a chunk that is still in the cache.
template <typename S>
void TrainerOf<S>::MeasureChunk(size_t index) {
  Chunk& chunk = chunks_[index];
  stats::SummarizeChunk(chunk.gradient, full(), &chunk_summaries_[index]);
  if (basic() && comparison_.has_value()) comparison_->Take(index, chunk.offset, chunk.gradient);
  if (!full() || chunk.gate_size == 0) return;
  chunk.gates = {};
  stats::AddGateSquares(chunk.gradient, chunk.begin, chunk.gate_size, chunk.gates.data());
}

// Norm by tensor and over all; from BASIC on with the rest of the summary. The
// norms have the same bits at each level. One pass over the gradients.
template <typename S>
void TrainerOf<S>::MeasureGradients(v1::StepStats* stats) {
  const auto count = static_cast<int64_t>(chunks_.size());
  team_.Run([&](int member) {
    const Range part = PartOf(count, member, team_.threads());
    for (auto i = static_cast<size_t>(part.begin); i < static_cast<size_t>(part.end); ++i) {
      MeasureChunk(i);
    }
  });
  const absl::Span<const S> gradients = network_.gradients();
  absl::Span<const stats::ChunkSummary<S>> summaries = chunk_summaries_;
  absl::Span<const Chunk> chunks = chunks_;
  stats::Log2Histogram* histogram = full() ? &histogram_ : nullptr;
  int64_t nonfinite = 0;
  for (size_t p = 0; p < gradient_norms_.size(); ++p) {
    const stats::TensorSummary summary =
        stats::Combine<S>(summaries.first(chunks_of_[p]), Part(gradients, p), histogram);
    gradient_norms_[p] = summary.norm;
    nonfinite += summary.nonfinite;
    if (basic()) {
      FillTensorStats(summary, histogram, stats->add_tensors());
      if (full())
        FillGateNorms(chunks.first(chunks_of_[p]), stats->mutable_tensors(static_cast<int>(p)));
    }
    summaries.remove_prefix(chunks_of_[p]);
    chunks.remove_prefix(chunks_of_[p]);
  }
  if (comparison_.has_value()) {
    if (basic()) {
      comparison_->FinishGradients(chunks_of_, gradient_norms_, stats);
    } else {
      comparison_->Forget();
    }
  }
  stats->set_norm_before(stats::CombineNorms(gradient_norms_));
  stats->set_nonfinite_count(nonfinite);
  if (std::isfinite(stats->norm_before())) last_finite_norm_ = stats->norm_before();
  if (last_finite_norm_.has_value()) stats->set_last_finite_norm(*last_finite_norm_);
}

// From the chunks of one tensor.
template <typename S>
void TrainerOf<S>::FillGateNorms(absl::Span<const Chunk> chunks, v1::TensorStats* message) const {
  if (chunks.empty() || chunks.front().gate_size == 0) return;
  const int gates = nn::GatesOf(network_.config().cell);
  for (int gate = 0; gate < gates; ++gate) {
    double sum = 0.0;
    for (const Chunk& chunk : chunks) sum += chunk.gates[static_cast<size_t>(gate)];
    message->add_gate_norms(std::sqrt(sum));
  }
}

// Of a step that changes no weight; an update measures them on its way.
template <typename S>
void TrainerOf<S>::MeasureWeights(v1::StepStats* stats) {
  if (!basic()) return;
  const absl::Span<const S> weights = network_.weights();
  for (size_t p = 0; p < weight_norms_.size(); ++p) {
    const double norm = stats::Norm<S>(Part(weights, p));
    stats->mutable_tensors(static_cast<int>(p))->set_weight_norm(norm);
  }
  if (comparison_.has_value()) comparison_->MeasureDistances(weights, stats);
}

template <typename S>
void TrainerOf<S>::MeasureThroughTime(v1::StepStats* stats) {
  if (!basic()) return DropGrowth(stats);
  const absl::Span<const nn::LayerTrace> traces = network_.traces();
  for (size_t layer = 0; layer < carries_.size(); ++layer) {
    const nn::LayerTrace& trace = traces[layer];
    carries_[layer] = {trace.state_gradient_norm, trace.carry_norm, trace.strides};
  }
  const int64_t truncation = network_.config().truncation;
  const int64_t window =
      truncation > 0 ? std::min(truncation, batch_.time_steps) : batch_.time_steps;
  if (stats::MeasureGrowth(carries_, static_cast<int>(window), &growth_)) {
    stats::ToProto(growth_, stats->mutable_growth());
  } else {
    DropGrowth(stats);
  }
  if (full()) FillLayerTimeStats(network_, stats);
}

// Before clipping: a policy may turn an infinity into a number.
template <typename S>
void TrainerOf<S>::RecordOrigin(v1::StepStats* stats) {
  const std::optional<nn::NonFinite> origin = network_.FirstNonFinite();
  if (origin.has_value()) {
    FillOrigin(*origin, stats->mutable_nonfinite_origin());
  } else {
    stats->mutable_nonfinite_origin()->set_tensor("loss");
  }
}

// Returns a factor that all gradients are still to be multiplied by.
template <typename S>
double TrainerOf<S>::ClipGradients(v1::StepStats* stats) {
  double factor = 1.0;
  clip::ClipContext<S> context;
  context.blocks = blocks_;
  context.step = step_;
  context.norms = gradient_norms_;
  context.factor = &factor;
  shadows_->Measure(context, stats->mutable_shadow_reports());
  clip_reports_ = chain_->Clip(context);
  stats->set_clipped(chain_->clipped());
  for (int i = 0; i < chain_->size(); ++i) chain_->FillReport(i, stats->add_clip_reports());
  return factor;
}

// What all policies together multiplied every gradient by; nothing where one turned the direction.
template <typename S>
std::optional<double> TrainerOf<S>::StraightFactor() const {
  double factor = 1.0;
  for (const clip::PolicyReport& report : clip_reports_) {
    if (!report.changed) continue;
    if (report.cosine.has_value() || !report.coefficient.has_value()) return std::nullopt;
    factor *= *report.coefficient;
  }
  return factor;
}

// At least the norm of the clipped gradients. Policies only ever make entries smaller, but may turn
// an infinity into a number.
template <typename S>
double TrainerOf<S>::NormBound(double factor, const v1::StepStats& stats) const {
  constexpr double kRoundings = 1.0 + 1e-5;
  if (!chain_->clipped()) return stats.norm_before();
  if (std::isfinite(stats.norm_before())) return stats.norm_before() * factor * kRoundings;
  return stats::Norm<S>(network_.gradients()) * factor * kRoundings;
}

template <typename S>
void TrainerOf<S>::Update(bool finite, bool outlier, double factor, v1::StepStats* stats) {
  typename Optimizer<S>::Update update;
  update.weights = network_.weights();
  update.gradients = network_.gradients();
  update.gradient_bound = NormBound(factor, *stats);
  update.rate = LearningRateAt(job_.optimizer(), job_.training().step_limit(), step_);
  update.number = updates_applied_ + 1;
  update.factor = factor;
  update.measure_gradients = chain_->clipped();
  update.measure_weights = basic();
  if (basic() && comparison_.has_value()) update.first_weights = comparison_->first_weights();
  stats->set_learning_rate(update.rate);

  const bool skip = ladder_.has_value() || job_.training().non_finite().skip();
  if (!outlier && (finite || !skip)) {
    const int bad = optimizer_.FirstNonFinite(update);
    if (finite && bad >= 0) {
      const nn::Parameter& parameter = network_.parameters()[static_cast<size_t>(bad)];
      v1::NonFiniteOrigin* origin = stats->mutable_nonfinite_origin();
      origin->set_tensor(absl::StrCat("update/", parameter.name));
      if (parameter.layer >= 0) origin->set_layer(parameter.layer);
      finite = false;
    }
  }
  nonfinite_in_a_row_ = finite ? 0 : nonfinite_in_a_row_ + 1;
  stats->set_skipped(outlier || (!finite && skip));
  if (stats->skipped()) return MeasureWeights(stats);

  optimizer_.Apply(update, absl::MakeSpan(update_norms_));
  ++updates_applied_;
  NoteStraightStep(update.rate);
  RecordClipping(stats);
  RecordUpdate(stats);
}

// Plain SGD goes along its gradient.
template <typename S>
void TrainerOf<S>::NoteStraightStep(double rate) {
  if (!basic() || !comparison_.has_value()) return;
  if (!job_.optimizer().has_sgd() || job_.optimizer().sgd().momentum() > 0.0) return;
  const std::optional<double> factor = StraightFactor();
  if (factor.has_value()) comparison_->NoteStraightStep(rate * *factor);
}

template <typename S>
void TrainerOf<S>::RecordClipping(v1::StepStats* stats) {
  double norm_after = stats->norm_before();
  if (stats->clipped()) {
    for (size_t p = 0; p < clipped_norms_.size(); ++p) {
      clipped_norms_[p] = update_norms_[p].gradient;
    }
    norm_after = stats::CombineNorms(clipped_norms_);
  }
  stats->set_norm_after(norm_after);
  stats->set_clip_coefficient(stats->norm_before() == 0.0 ? 1.0
                                                          : norm_after / stats->norm_before());
}

// Ratios to a weight norm of 0, such as of fresh biases, do not exist.
template <typename S>
void TrainerOf<S>::RecordUpdate(v1::StepStats* stats) {
  if (!basic()) return;
  for (size_t p = 0; p < update_norms_.size(); ++p) {
    const typename Optimizer<S>::Norms& norms = update_norms_[p];
    v1::TensorStats* tensor = stats->mutable_tensors(static_cast<int>(p));
    tensor->set_weight_norm(norms.weight);
    if (norms.weight != 0.0) tensor->set_update_ratio(norms.change / norms.weight);
    weight_norms_[p] = norms.weight;
    change_norms_[p] = norms.change;
    distances_[p] = norms.distance;
  }
  if (comparison_.has_value()) comparison_->RecordDistances(distances_, stats);
  stats->set_update_norm(stats::CombineNorms(change_norms_));
  const double weight_norm = stats::CombineNorms(weight_norms_);
  if (weight_norm != 0.0) stats->set_update_ratio(stats->update_norm() / weight_norm);
}

// Rows whose carried state left the finite numbers would spoil every window to
// come: they begin again from zero.
template <typename S>
void TrainerOf<S>::RestartBrokenRows() {
  const absl::Span<S> state = network_.state();
  const auto hidden = static_cast<size_t>(network_.config().hidden);
  const auto rows = static_cast<size_t>(shape_.rows_max);
  const size_t part = rows * hidden;
  for (size_t row = 0; row < rows; ++row) {
    bool finite = true;
    for (size_t at = row * hidden; at < state.size(); at += part) {
      for (const S value : state.subspan(at, hidden)) finite = finite && std::isfinite(value);
    }
    if (finite) continue;
    for (size_t at = row * hidden; at < state.size(); at += part) {
      std::fill_n(state.begin() + static_cast<ptrdiff_t>(at), hidden, S{0});
    }
  }
}

// Before a step. The first one counts at once: there is nothing better to go back to.
template <typename S>
void TrainerOf<S>::TakeCheckpoint() {
  const bool due = points_->empty() || step_ % ladder_->spec().checkpoint_every_steps() == 0;
  if (!due || points_->has_candidate() || (ladder_->in_episode() && !points_->empty())) return;
  if (!points_->Propose(network_.weights(), optimizer_.state())) return;
  typename RecoveryPoints<S>::Point& point = points_->candidate();
  point.step = step_;
  point.updates_applied = updates_applied_;
  point.steps_taken_back = steps_taken_back_;
  point.clip_states = chain_->SaveStates();
  point.estimates = ladder_->estimates();
  if (points_->empty()) points_->Prove();
}

template <typename S>
void TrainerOf<S>::Respond(const std::string& outlier, v1::StepStats* stats) {
  if (!stats->skipped()) return RespondToGood(stats);
  points_->DropCandidate();
  const std::string cause = outlier.empty() ? absl::StrCat("not finite, first in '",
                                                           stats->nonfinite_origin().tensor(), "'")
                                            : outlier;
  const bool went_back = WentBack();
  const double lowered = LoweredRate();
  switch (ladder_->Bad(lowered < learning_rate(), !points_->empty())) {
    case Ladder::Action::kSkip:
      AddAction(v1::Intervention::KIND_SKIP, cause, stats);
      return;
    case Ladder::Action::kLowerRate:
      ladder_->NoteRate(learning_rate());
      return SetRate(lowered, AddAction(v1::Intervention::KIND_LOWER_RATE, cause, stats));
    case Ladder::Action::kRollBack:
      if (went_back) points_->DropNewest();
      return RollBack(cause, stats);
    case Ladder::Action::kStop:
      AddAction(v1::Intervention::KIND_STOP,
                absl::StrCat("the ladder came to its end at step ", step_, ": ", cause), stats);
      return;
  }
}

template <typename S>
void TrainerOf<S>::RespondToGood(v1::StepStats* stats) {
  ladder_->Good(stats->loss(), stats->norm_before());
  points_->NoteGood(ladder_->spec().calm_steps());
  const std::optional<double> rate = ladder_->RateDue();
  if (!rate.has_value()) return;
  ladder_->ForgetRate();
  SetRate(*rate, AddAction(v1::Intervention::KIND_RESTORE_RATE, "", stats));
}

// As low as a schedule allows.
template <typename S>
double TrainerOf<S>::LoweredRate() const {
  const double rate = learning_rate() * ladder_->spec().rate_factor();
  return std::max(rate, job_.optimizer().warmup_cosine().learning_rate_min());
}

template <typename S>
v1::Intervention* TrainerOf<S>::AddAction(v1::Intervention::Kind kind, const std::string& cause,
                                          v1::StepStats* stats) const {
  v1::Intervention* action = stats->add_interventions();
  action->set_kind(kind);
  action->set_step(step_);
  action->set_cause(cause);
  return action;
}

template <typename S>
void TrainerOf<S>::SetRate(double rate, v1::Intervention* action) {
  AddChange("optimizer.learning_rate", ShortestText(learning_rate()), ShortestText(rate), action);
  job_.mutable_optimizer()->set_learning_rate(rate);
}

template <typename S>
void TrainerOf<S>::MoveStepLimit(int64_t steps, v1::Intervention* action) {
  const int64_t before = job_.training().step_limit();
  const int64_t after = before + std::min(steps, kStepLimitMax - before);
  if (after <= before) return;
  AddChange("training.step_limit", JsonText(before), JsonText(after), action);
  job_.mutable_training()->set_step_limit(after);
}

// The present step is the last of those that go. Where an older checkpoint is gone back to, or the
// same once more, some of the steps behind it were made up for already.
template <typename S>
void TrainerOf<S>::TakeBackSteps(const typename RecoveryPoints<S>::Point& point,
                                 v1::Intervention* action) {
  const int64_t taken_back_before = steps_taken_back_ - point.steps_taken_back;
  const int64_t steps = step_ + 1 - point.step - taken_back_before;
  steps_taken_back_ += steps;
  MoveStepLimit(steps, action);
}

// Whether the step's batch is bad for the weights that are in place now.
template <typename S>
bool TrainerOf<S>::BatchIsBad() {
  const double loss = network_.ForwardBackward(batch_);
  const double norm = clip::NormOf<S>(clip::Norm::kL2, network_.gradients());
  return !std::isfinite(loss) || !std::isfinite(norm) || !ladder_->WhatIsBad(loss, norm).empty();
}

// Batches are left out by reading them. The state that is carried belongs to other data now.
// A batch that is just as bad for weights that were good says nothing against the rate.
template <typename S>
void TrainerOf<S>::RollBack(const std::string& cause, v1::StepStats* stats) {
  v1::Intervention* const action = AddAction(v1::Intervention::KIND_ROLL_BACK, cause, stats);
  const typename RecoveryPoints<S>::Point& point = points_->newest();
  std::copy_n(point.weights.data(), point.weights.size(), network_.weights().data());
  std::copy_n(point.optimizer_state.data(), point.optimizer_state.size(),
              optimizer_.state().data());
  optimizer_.ForgetBounds();
  updates_applied_ = point.updates_applied;
  nonfinite_in_a_row_ = 0;
  // A policy that was edited since starts afresh.
  chain_->LoadStates(point.clip_states).IgnoreError();
  ladder_->Restore(point.estimates);
  network_.ResetState();
  const bool batch_is_bad = BatchIsBad();
  network_.ResetState();
  if (comparison_.has_value()) comparison_->Forget();
  const int64_t left_out = ladder_->spec().batches_skipped();
  for (int64_t i = 0; i < left_out; ++i) source_->NextBatch(&batch_);
  action->set_restored_step(point.step);
  action->set_batches_skipped(left_out);
  TakeBackSteps(point, action);
  if (!batch_is_bad) return;
  const std::optional<double> rate = ladder_->TakeBackRate();
  if (!rate.has_value()) return;
  const std::string reason = absl::StrCat("the batch is as bad for the weights of step ",
                                          point.step, ": the rate is not to blame");
  SetRate(*rate, AddAction(v1::Intervention::KIND_RESTORE_RATE, reason, stats));
}

template <typename S>
v1::EvaluationResult TrainerOf<S>::Evaluate() {
  const ArithmeticMode mode;
  v1::EvaluationResult result = evaluator_.Run();
  result.set_step(step_);
  return result;
}

template <typename S>
absl::Status TrainerOf<S>::ApplySettings(const v1::Job& job) {
  ASSIGN_OR_RETURN(std::unique_ptr<clip::ClipChain> chain, clip::ClipChain::New(job.clipping()));
  std::vector<std::string> states = chain->SaveStates();
  const std::vector<std::string> old_states = chain_->SaveStates();
  for (int i = 0; i < std::min(chain->size(), chain_->size()); ++i) {
    const auto at = static_cast<size_t>(i);
    if (chain->policy(i).name() == chain_->policy(i).name()) states[at] = old_states[at];
  }
  RETURN_IF_ERROR(chain->LoadStates(states));
  chain_ = std::move(chain);
  *job_.mutable_clipping() = job.clipping();
  if (ladder_.has_value() && job.optimizer().learning_rate() != learning_rate()) {
    ladder_->ForgetRate();
  }
  job_.mutable_optimizer()->set_learning_rate(job.optimizer().learning_rate());
  job_.mutable_training()->set_step_limit(job.training().step_limit());
  job_.mutable_training()->clear_truncation();
  if (job.training().has_truncation()) {
    job_.mutable_training()->set_truncation(job.training().truncation());
  }
  job_.set_statistics_level(job.statistics_level());
  network_.SetTruncation(NetworkConfigOf(job_, shape_).truncation);
  if (comparison_.has_value()) comparison_->ForgetStep();
  return absl::OkStatus();
}

template <typename S>
v1::Checkpoint TrainerOf<S>::Save() const {
  v1::Checkpoint checkpoint;
  checkpoint.set_step(step_);
  checkpoint.set_updates_applied(updates_applied_);
  checkpoint.set_nonfinite_in_a_row(nonfinite_in_a_row_);
  checkpoint.set_weights(ToBytes(network_.weights()));
  checkpoint.set_optimizer_state(ToBytes(optimizer_.state()));
  if (shape_.carries_state) checkpoint.set_carried_state(ToBytes(network_.state()));
  checkpoint.set_data_state(source_->SaveState());
  for (std::string& state : chain_->SaveStates()) checkpoint.add_clip_states(std::move(state));
  stats::StateWriter writer;
  writer.Int(kStatisticsStateVersion);
  writer.Int(last_finite_norm_.has_value());
  writer.Double(last_finite_norm_.value_or(0.0));
  if (spectrum_.has_value()) spectrum_->SaveState(&writer);
  if (noise_.has_value()) noise_->SaveState(&writer);
  if (comparison_.has_value()) writer.Double(comparison_->step_factor());
  checkpoint.set_statistics_state(writer.bytes());
  if (ladder_.has_value()) {
    stats::StateWriter ladder;
    ladder_->SaveState(&ladder);
    points_->SaveState(&ladder);
    ladder.Int(steps_taken_back_);
    checkpoint.set_ladder_state(ladder.bytes());
  }
  if (comparison_.has_value()) checkpoint.set_previous_gradient(comparison_->Save());
  for (const v1::ParameterInfo& info : parameter_infos_) *checkpoint.add_parameters() = info;
  checkpoint.set_precision(job_.training().precision());
  return checkpoint;
}

template <typename S>
bool TrainerOf<S>::FitsJob(const v1::Checkpoint& checkpoint) const {
  if (checkpoint.precision() != job_.training().precision()) return false;
  if (checkpoint.parameters_size() != static_cast<int>(parameter_infos_.size())) return false;
  for (int i = 0; i < checkpoint.parameters_size(); ++i) {
    const v1::ParameterInfo& here = parameter_infos_[static_cast<size_t>(i)];
    const v1::ParameterInfo& there = checkpoint.parameters(i);
    if (here.name() != there.name()) return false;
    if (!std::equal(here.shape().begin(), here.shape().end(), there.shape().begin(),
                    there.shape().end())) {
      return false;
    }
  }
  return checkpoint.step() >= 0 && checkpoint.updates_applied() >= 0 &&
         checkpoint.updates_applied() <= checkpoint.step() && checkpoint.nonfinite_in_a_row() >= 0;
}

template <typename S>
bool TrainerOf<S>::LoadStatistics(const v1::Checkpoint& checkpoint) {
  stats::StateReader reader(checkpoint.statistics_state());
  if (reader.Int() != kStatisticsStateVersion) return false;
  const bool has_norm = reader.Int() != 0;
  const double norm = reader.Double();
  if (has_norm) last_finite_norm_ = norm;
  if (spectrum_.has_value()) spectrum_->LoadState(&reader);
  if (noise_.has_value()) noise_->LoadState(&reader);
  if (comparison_.has_value()) comparison_->NoteStraightStep(reader.Double());
  if (!reader.ok() || !reader.at_end()) return false;
  if (comparison_.has_value()) return comparison_->Load(checkpoint.previous_gradient());
  return checkpoint.previous_gradient().empty();
}

// Leaves a trainer without meaning when it fails; the only caller throws it
// away.
template <typename S>
absl::Status TrainerOf<S>::Load(const v1::Checkpoint& checkpoint) {
  const auto loss = [](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("checkpoint: ", what, " do not fit the job"));
  };
  if (!FitsJob(checkpoint)) return loss("precision, parameters or counters");
  if (!FromBytes(checkpoint.weights(), network_.weights())) return loss("weights");
  if (!FromBytes(checkpoint.optimizer_state(), optimizer_.state())) return loss("optimizer_state");
  optimizer_.ForgetBounds();
  const absl::Span<S> carried = shape_.carries_state ? network_.state() : absl::Span<S>();
  if (!FromBytes(checkpoint.carried_state(), carried)) return loss("carried_state");
  if (!source_->LoadState(checkpoint.data_state()).ok()) return loss("data_state");
  const std::vector<std::string> clip_states(checkpoint.clip_states().begin(),
                                             checkpoint.clip_states().end());
  if (!chain_->LoadStates(clip_states).ok()) return loss("clip_states");

  if (ladder_.has_value()) {
    stats::StateReader ladder(checkpoint.ladder_state());
    ladder_->LoadState(&ladder);
    if (!points_->LoadState(&ladder)) return loss("ladder_state");
    steps_taken_back_ = ladder.Int();
    if (!ladder.ok() || !ladder.at_end()) return loss("ladder_state");
  }
  if (!LoadStatistics(checkpoint)) return loss("statistics_state or previous_gradient");
  step_ = checkpoint.step();
  updates_applied_ = checkpoint.updates_applied();
  nonfinite_in_a_row_ = checkpoint.nonfinite_in_a_row();
  return absl::OkStatus();
}

// What the job's diagnostics hold.
template <typename S>
int64_t DiagnosticsBytesOf(const v1::Diagnostics& diagnostics, const nn::NetworkConfig& config,
                           const data::TaskShape& shape, int64_t state) {
  int64_t bytes = 0;
  if (diagnostics.compare_steps()) {
    const int64_t weights = nn::ParameterCountOf(config);
    bytes = StepComparison<S>::MemoryBytesOf(weights, weights / stats::kChunk);
  }
  if (diagnostics.recurrent_every_steps() > 0) {
    const int64_t held = RecurrentSpectrum::MemoryBytesOf(config, ThreadsUsefulOf(config, shape));
    bytes = nn::SaturatingAdd(bytes, held);
  }
  if (diagnostics.probe_every_steps() > 0 && config.loss_at == nn::LossAt::kEachStep) {
    const int64_t positions = nn::SaturatingMultiply(shape.rows_max, shape.time_steps);
    bytes = nn::SaturatingAdd(bytes, LastStepProbe<S>::MemoryBytesOf(state, positions));
  }
  if (diagnostics.noise_every_steps() > 0) {
    const int64_t held = GradientNoise<S>::MemoryBytesOf(nn::ParameterCountOf(config), state, shape,
                                                         diagnostics.noise_parts());
    bytes = nn::SaturatingAdd(bytes, held);
  }
  return bytes;
}

int64_t MemoryBytesOf(const v1::Job& job, const data::TaskShape& shape) {
  const nn::NetworkConfig config = NetworkConfigOf(job, shape);
  if (config.layers < 1 || config.hidden < 1) return 0;
  if (config.layers > nn::kLayersMax) return std::numeric_limits<int64_t>::max();
  const int64_t scalar = job.training().precision() == v1::Training::PRECISION_FLOAT64 ? 8 : 4;
  const int64_t weights = nn::ParameterCountOf(config);
  const int64_t optimizer =
      nn::SaturatingMultiply(weights, scalar * OptimizerVectorsOf(job.optimizer()));
  const int64_t checkpoints = job.has_ladder() ? job.ladder().checkpoints() + 1 : 0;
  const int64_t recovery = nn::SaturatingMultiply(
      nn::SaturatingMultiply(weights, scalar * (1 + OptimizerVectorsOf(job.optimizer()))),
      checkpoints);
  const int64_t state_vectors = (config.cell == nn::Cell::kLstm ? 2 : 1) * config.layers;
  const int64_t state =
      nn::SaturatingMultiply(nn::SaturatingMultiply(shape.rows_max, config.hidden), state_vectors);
  const int64_t state_aside = nn::SaturatingMultiply(state, scalar);
  const int64_t diagnostics =
      scalar == 8 ? DiagnosticsBytesOf<double>(job.diagnostics(), config, shape, state)
                  : DiagnosticsBytesOf<float>(job.diagnostics(), config, shape, state);
  int64_t bytes = nn::MemoryBytesOf(config, shape.rows_max, shape.time_steps, scalar,
                                    ThreadsUsefulOf(config, shape));
  // What statistics and optimizer note of each chunk of the weights.
  constexpr auto kChunkNoteBytes = static_cast<int64_t>(sizeof(stats::ChunkSummary<double>) +
                                                        (16 + nn::kGatesMax) * sizeof(double));
  const int64_t chunks = nn::SaturatingMultiply(weights / stats::kChunk, kChunkNoteBytes);
  for (const int64_t part :
       {optimizer, recovery, state_aside, diagnostics, chunks, data::SourceMemoryBytes(job, shape),
        LossByLength::MemoryBytesOf(shape.rows_max), kFixedBytes}) {
    bytes = nn::SaturatingAdd(bytes, part);
  }
  return bytes;
}

template <typename S>
absl::StatusOr<std::unique_ptr<Trainer>> Make(const v1::Job& job,
                                              std::unique_ptr<data::Source> source,
                                              const v1::Checkpoint* checkpoint) {
  ASSIGN_OR_RETURN(std::unique_ptr<clip::ClipChain> chain, clip::ClipChain::New(job.clipping()));
  ASSIGN_OR_RETURN(std::unique_ptr<clip::ShadowClips> shadows,
                   clip::ShadowClips::New(job.shadow_clips()));
  auto trainer =
      std::make_unique<TrainerOf<S>>(job, std::move(source), std::move(chain), std::move(shadows));
  if (checkpoint != nullptr) RETURN_IF_ERROR(trainer->Load(*checkpoint));
  return trainer;
}

// The one place where memory that cannot be had becomes a status: `source` is made from `dataset`
// when it is null.
absl::StatusOr<std::unique_ptr<Trainer>> MakeChecked(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
    std::unique_ptr<data::Source> source, const v1::Checkpoint* checkpoint) {
  const int64_t bytes = source == nullptr ? EstimateMemoryBytes(job, dataset.get())
                                          : MemoryBytesOf(job, source->shape());
  try {
    if (source == nullptr) {
      ASSIGN_OR_RETURN(source, data::NewSource(job, std::move(dataset)));
    }
    if (job.training().precision() == v1::Training::PRECISION_FLOAT64) {
      return Make<double>(job, std::move(source), checkpoint);
    }
    return Make<float>(job, std::move(source), checkpoint);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the job needs about ", bytes, " bytes of memory, which cannot be had"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset) {
  return MakeChecked(job, std::move(dataset), nullptr, nullptr);
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::CreateOn(const v1::Job& job,
                                                           std::unique_ptr<data::Source> source) {
  return MakeChecked(job, nullptr, std::move(source), nullptr);
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Restore(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
    const v1::Checkpoint& checkpoint) {
  return MakeChecked(job, std::move(dataset), nullptr, &checkpoint);
}

int64_t EstimateMemoryBytes(const v1::Job& job, const data::DatasetContent* dataset) {
  const absl::StatusOr<data::TaskShape> shape = data::ShapeOf(job, dataset);
  return shape.ok() ? MemoryBytesOf(job, *shape) : 0;
}

}  // namespace gradwatch::train
