#include "server/train/recurrent_spectrum.h"

#include "server/base/range.h"
#include "server/nn/spectrum.h"

namespace gradwatch::train {

RecurrentSpectrum::RecurrentSpectrum(const nn::NetworkConfig& config,
                                     const std::vector<nn::Parameter>& parameters, ThreadTeam* team)
    : hidden_(config.hidden),
      gates_(nn::GatesOf(config.cell)),
      team_(team),
      vectors_(config.layers * gates_ * hidden_),
      workspaces_(team->threads_max() * nn::SpectrumWorkspace(hidden_)) {
  for (const nn::Parameter& parameter : parameters) {
    if (parameter.role != nn::Role::kRecurrentWeight) continue;
    for (int gate = 0; gate < gates_; ++gate) {
      blocks_.push_back({parameter.offset + gate * hidden_ * hidden_});
    }
  }
}

absl::Span<double> RecurrentSpectrum::VectorOf(size_t block) {
  const auto size = static_cast<size_t>(hidden_);
  return absl::MakeSpan(vectors_.data() + block * size, size);
}

template <typename S>
void RecurrentSpectrum::Measure(absl::Span<const S> weights, v1::StepStats* record) {
  const int iterations = begun_ ? kIterations : kFirstIterations;
  const int64_t size = nn::SpectrumWorkspace(hidden_);
  team_->Run([&](int member) {
    const absl::Span<double> work =
        absl::MakeSpan(workspaces_.data() + member * size, static_cast<size_t>(size));
    const Range part = PartOf(static_cast<int64_t>(blocks_.size()), member, team_->threads());
    for (auto i = static_cast<size_t>(part.begin); i < static_cast<size_t>(part.end); ++i) {
      const S* const matrix = weights.data() + blocks_[i].offset;
      blocks_[i].sigma_max =
          nn::LargestSingularValue(matrix, hidden_, iterations, VectorOf(i), work);
      blocks_[i].radius = nn::SpectralRadius(matrix, hidden_, work);
    }
  });
  begun_ = true;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const auto gates = static_cast<size_t>(gates_);
    if (i % gates == 0) record->add_recurrent()->set_layer(static_cast<int32_t>(i / gates));
    v1::RecurrentStats* layer = record->mutable_recurrent(static_cast<int>(i / gates));
    layer->add_sigma_max(blocks_[i].sigma_max);
    layer->add_spectral_radius(blocks_[i].radius);
  }
}

void RecurrentSpectrum::SaveState(stats::StateWriter* writer) const {
  writer->Int(begun_);
  for (int64_t i = 0; begun_ && i < vectors_.size(); ++i) writer->Double(vectors_[i]);
}

void RecurrentSpectrum::LoadState(stats::StateReader* reader) {
  begun_ = reader->Int() != 0;
  for (int64_t i = 0; begun_ && i < vectors_.size(); ++i) vectors_[i] = reader->Double();
}

int64_t RecurrentSpectrum::MemoryBytesOf(const nn::NetworkConfig& config, int threads) {
  const int64_t vectors = nn::SaturatingAdd(int64_t{config.layers} * nn::GatesOf(config.cell),
                                            int64_t{threads} * (nn::kKrylovVectors + 1));
  return nn::SaturatingMultiply(nn::SaturatingMultiply(vectors, config.hidden),
                                static_cast<int64_t>(sizeof(double)));
}

template void RecurrentSpectrum::Measure(absl::Span<const float>, v1::StepStats*);
template void RecurrentSpectrum::Measure(absl::Span<const double>, v1::StepStats*);

}  // namespace gradwatch::train
