#include "tests/bench/reference_rules.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <utility>

#include "server/stats/gradient_stats.h"

namespace gradwatch::bench {
namespace {

using Predicate = std::function<bool(const v1::StepStats&)>;

class PredicateRule final : public ReferenceRule {
 public:
  explicit PredicateRule(Predicate predicate) : predicate_(std::move(predicate)) {}
  bool Holds(const v1::StepStats& stats) override { return predicate_(stats); }

 private:
  Predicate predicate_;
};

std::vector<int64_t> SizesOf(const v1::Job& job) {
  std::vector<int64_t> sizes;
  for (const v1::ParameterInfo& parameter : job.parameters()) {
    int64_t size = 1;
    for (const int64_t dimension : parameter.shape()) size *= dimension;
    sizes.push_back(size);
  }
  return sizes;
}

// Whether some tensor, with its number of entries, is as `is` says.
template <typename Is>
bool AnyTensor(const v1::StepStats& stats, const std::vector<int64_t>& sizes, Is is) {
  for (int i = 0; i < stats.tensors_size(); ++i) {
    if (is(stats.tensors(i), sizes[static_cast<size_t>(i)])) return true;
  }
  return false;
}

bool NonFinite(const v1::StepStats& stats) {
  return stats.nonfinite_count() > 0 || stats.has_nonfinite_origin() ||
         !std::isfinite(stats.loss());
}

// By the middle of each bin.
double MeanMagnitude(const v1::TensorStats& tensor, int64_t size) {
  double sum = 0.0;
  int bin = tensor.magnitude_first_bin();
  for (const uint32_t count : tensor.magnitude_counts()) {
    sum += count * 0.5 * (stats::BinEdge(bin) + stats::BinEdge(bin + 1));
    ++bin;
  }
  return sum / static_cast<double>(size);
}

Predicate VanishingGradient(const std::vector<int64_t>& sizes) {
  return [sizes](const v1::StepStats& stats) {
    return AnyTensor(stats, sizes, [](const v1::TensorStats& tensor, int64_t size) {
      return tensor.nonfinite() == 0 && MeanMagnitude(tensor, size) < 1e-7;
    });
  };
}

Predicate WeightUpdateRatio(const std::vector<int64_t>& sizes) {
  return [sizes](const v1::StepStats& stats) {
    return AnyTensor(stats, sizes, [](const v1::TensorStats& tensor, int64_t) {
      if (!tensor.has_update_ratio()) return false;
      return tensor.update_ratio() > 10.0 || tensor.update_ratio() < 1e-8;
    });
  };
}

Predicate AllZero(const std::vector<int64_t>& sizes) {
  return [sizes](const v1::StepStats& stats) {
    return AnyTensor(stats, sizes, [](const v1::TensorStats& tensor, int64_t size) {
      return tensor.zeros() == size;
    });
  };
}

class UnchangedTensor final : public ReferenceRule {
 public:
  explicit UnchangedTensor(size_t tensors) : unchanged_(tensors) {}
  bool Holds(const v1::StepStats& stats) override {
    bool any = false;
    for (int i = 0; i < stats.tensors_size(); ++i) {
      int& steps = unchanged_[static_cast<size_t>(i)];
      const v1::TensorStats& tensor = stats.tensors(i);
      steps = tensor.has_update_ratio() && tensor.update_ratio() < 1e-5 ? steps + 1 : 0;
      any = any || steps >= 3;
    }
    return any;
  }

 private:
  std::vector<int> unchanged_;  // Steps in a row.
};

class LossNotDecreasing final : public ReferenceRule {
 public:
  bool Holds(const v1::StepStats& stats) override {
    losses_.push_back(stats.loss());
    if (losses_.size() <= 10) return false;
    const double before = losses_.front();
    losses_.pop_front();
    return stats.loss() >= before;
  }

 private:
  std::deque<double> losses_;
};

// At least ten times the largest of the first hundred.
class UnexpectedlyLarge final : public ReferenceRule {
 public:
  explicit UnexpectedlyLarge(double (*value)(const v1::StepStats&)) : value_(value) {}
  bool Holds(const v1::StepStats& stats) override {
    const double value = std::abs(value_(stats));
    if (samples_ < 100) {
      ++samples_;
      if (std::isfinite(value)) largest_ = std::max(largest_, value);
      return false;
    }
    return value >= 10.0 * largest_;
  }

 private:
  double (*value_)(const v1::StepStats&);
  int samples_ = 0;
  double largest_ = 0.0;
};

class ZClip final : public ReferenceRule {
 public:
  bool Holds(const v1::StepStats& stats) override {
    const double norm = stats.norm_before();
    if (!std::isfinite(norm)) return false;
    if (warmup_.size() < kWarmup) {
      warmup_.push_back(norm);
      if (warmup_.size() == kWarmup) StartBaseline();
      return false;
    }
    const double z = (norm - mean_) / (std::sqrt(variance_) + 1e-6);
    // A spike enters the baseline as what it is clipped to.
    const double seen = z > kLimit ? mean_ + kLimit * kLimit / z * std::sqrt(variance_) : norm;
    variance_ = kDecay * variance_ + (1.0 - kDecay) * (seen - mean_) * (seen - mean_);
    mean_ = kDecay * mean_ + (1.0 - kDecay) * seen;
    return z > kLimit;
  }

 private:
  static constexpr size_t kWarmup = 25;
  static constexpr double kLimit = 2.5;
  static constexpr double kDecay = 0.97;

  void StartBaseline() {
    for (const double norm : warmup_) mean_ += norm / kWarmup;
    for (const double norm : warmup_) variance_ += (norm - mean_) * (norm - mean_) / kWarmup;
  }

  std::vector<double> warmup_;
  double mean_ = 0.0;
  double variance_ = 0.0;
};

}  // namespace

std::vector<NamedReferenceRule> NewReferenceRules(const v1::Job& job) {
  const std::vector<int64_t> sizes = SizesOf(job);
  std::vector<NamedReferenceRule> rules;
  const auto add = [&rules](const char* group, const char* name,
                            std::unique_ptr<ReferenceRule> rule) {
    rules.push_back({group, name, std::move(rule)});
  };
  const auto when = [](Predicate predicate) {
    return std::make_unique<PredicateRule>(std::move(predicate));
  };
  add("SageMaker", "SMD_EXPLODING_TENSOR", when(&NonFinite));
  add("SageMaker", "SMD_VANISHING_GRADIENT", when(VanishingGradient(sizes)));
  add("SageMaker", "SMD_WEIGHT_UPDATE_RATIO", when(WeightUpdateRatio(sizes)));
  add("SageMaker", "SMD_ALL_ZERO", when(AllZero(sizes)));
  add("SageMaker", "SMD_UNCHANGED_TENSOR", std::make_unique<UnchangedTensor>(sizes.size()));
  add("SageMaker", "SMD_LOSS_NOT_DECREASING", std::make_unique<LossNotDecreasing>());
  add("Megatron", "MEGATRON_LARGE_LOSS",
      std::make_unique<UnexpectedlyLarge>([](const v1::StepStats& s) { return s.loss(); }));
  add("Megatron", "MEGATRON_LARGE_NORM",
      std::make_unique<UnexpectedlyLarge>([](const v1::StepStats& s) { return s.norm_before(); }));
  add("ZClip", "ZCLIP", std::make_unique<ZClip>());
  add("Lightning", "LIGHTNING_FINITE",
      when([](const v1::StepStats& stats) { return !std::isfinite(stats.loss()); }));
  return rules;
}

}  // namespace gradwatch::bench
