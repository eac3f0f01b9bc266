// Each clip policy over gradients of so many entries in all, split into four tensors, where it acts
// and, for the global norm, where it leaves the gradient alone. Float32.
//
//   build/dev/bench/clip_bench --benchmark_filter=GlobalNorm

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "benchmark/benchmark.h"
#include "server/base/philox.h"
#include "server/clip/policy.h"
#include "server/clip/shadow_clips.h"

namespace gradwatch::clip {
namespace {

constexpr size_t kTensors = 4;

// Gradients that can be put back to what they were before a policy changed them.
class Gradients {
 public:
  explicit Gradients(int64_t entries)
      : original_(static_cast<size_t>(entries)),
        values_(original_.size()),
        shape_({entries / static_cast<int64_t>(kTensors)}) {
    RandomStream random(1, StreamOf("benchmark"), 0);
    for (float& value : original_) value = static_cast<float>(random.NextNormal());
    const size_t part = values_.size() / kTensors;
    for (size_t i = 0; i < kTensors; ++i) {
      const absl::Span<float> gradient(values_.data() + i * part, part);
      blocks_.push_back({"tensor", gradient, gradient, shape_});
    }
    context_.blocks = blocks_;
  }

  void PutBack() { std::copy(original_.begin(), original_.end(), values_.begin()); }
  const ClipContext<float>& context() const { return context_; }

 private:
  std::vector<float> original_;
  std::vector<float> values_;
  std::vector<int64_t> shape_;
  std::vector<Block<float>> blocks_;
  ClipContext<float> context_;
};

// Part of every time below.
void BM_PutBackAlone(benchmark::State& state) {
  Gradients gradients(state.range(0));
  for (auto _ : state) {
    gradients.PutBack();
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void Clip(benchmark::State& state, const v1::ClipPolicy& spec) {
  Gradients gradients(state.range(0));
  const std::unique_ptr<ClipPolicy> policy = *NewClipPolicy(spec);
  for (auto _ : state) {
    gradients.PutBack();
    benchmark::DoNotOptimize(policy->Clip(gradients.context()));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

v1::ClipPolicy GlobalNorm(double max_norm) {
  v1::ClipPolicy spec;
  spec.mutable_global_norm()->set_max_norm(max_norm);
  return spec;
}

void BM_GlobalNormClip(benchmark::State& state) { Clip(state, GlobalNorm(1e-3)); }

void BM_GlobalNormBelowThreshold(benchmark::State& state) { Clip(state, GlobalNorm(1e9)); }

void BM_ParameterNormClip(benchmark::State& state) {
  v1::ClipPolicy spec;
  spec.mutable_parameter_norm()->set_max_norm(1e-3);
  Clip(state, spec);
}

void BM_ValueClip(benchmark::State& state) {
  v1::ClipPolicy spec;
  spec.mutable_value()->set_minimum(-0.5);
  spec.mutable_value()->set_maximum(0.5);
  Clip(state, spec);
}

// Eight of one kind, as a step measures them: with the tensors' norms at hand.
void MeasureShadows(benchmark::State& state, const v1::ClipPolicy& spec) {
  Gradients gradients(state.range(0));
  gradients.PutBack();
  google::protobuf::RepeatedPtrField<v1::ClipPolicy> specs;
  for (int i = 0; i < kShadowsMax; ++i) *specs.Add() = spec;
  const std::unique_ptr<ShadowClips> shadows = *ShadowClips::New(specs);
  std::vector<double> norms;
  for (const Block<float>& block : gradients.context().blocks) {
    double squares = 0.0;
    for (const float value : block.gradient) squares += double{value} * double{value};
    norms.push_back(std::sqrt(squares));
  }
  ClipContext<float> context = gradients.context();
  context.norms = norms;
  google::protobuf::RepeatedPtrField<v1::ShadowReport> reports;
  for (auto _ : state) {
    reports.Clear();
    shadows->Measure(context, &reports);
    benchmark::DoNotOptimize(reports);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void BM_ShadowGlobalNorms(benchmark::State& state) { MeasureShadows(state, GlobalNorm(1e-3)); }

void BM_ShadowValues(benchmark::State& state) {
  v1::ClipPolicy spec;
  spec.mutable_value()->set_maximum(0.5);
  MeasureShadows(state, spec);
}

BENCHMARK(BM_PutBackAlone)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_GlobalNormClip)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_GlobalNormBelowThreshold)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_ParameterNormClip)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_ValueClip)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_ShadowGlobalNorms)->Range(1 << 10, 1 << 20);
BENCHMARK(BM_ShadowValues)->Range(1 << 10, 1 << 20);

}  // namespace
}  // namespace gradwatch::clip

BENCHMARK_MAIN();
