#include "server/clip/value_clip.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/clip/lanes.h"
#include "server/clip/norm_rule.h"

namespace gradwatch::clip {
namespace {

// A bound as the gradients' type has it: the nearest finite number.
template <typename S>
double BoundAs(double bound) {
  constexpr double kLargest = static_cast<double>(std::numeric_limits<S>::max());
  return static_cast<double>(static_cast<S>(std::clamp(bound, -kLargest, kLargest)));
}

// Clamps the entries of a tensor and sums up, in one pass, what the report needs.
class Clamper {
 public:
  Clamper(double minimum, double maximum)
      : minimum_(AllLanes(minimum)), maximum_(AllLanes(maximum)) {}

  // Puts the bounds in place only with `apply`.
  template <bool apply, typename S>
  void Clamp(absl::Span<S> values) {
    constexpr int64_t kStride = 2 * kLanes;
    const int64_t size = static_cast<int64_t>(values.size());
    int64_t i = 0;
    for (; i + kStride <= size; i += kStride) {
      ClampLanes<apply>(values.data() + i, 0);
      ClampLanes<apply>(values.data() + i + kLanes, 1);
    }
    if (i == size) return;
    // Zeros lie between the bounds: they count for nothing.
    S rest[kStride] = {};
    std::copy(values.begin() + i, values.end(), rest);
    ClampLanes<true>(rest, 0);
    ClampLanes<true>(rest + kLanes, 1);
    if (apply) std::copy(rest, rest + (size - i), values.begin() + i);
  }

  int64_t clamped() const {
    const LaneBits sum = clamped_[0] + clamped_[1];
    return sum[0] + sum[1] + sum[2] + sum[3];
  }
  std::optional<double> cosine() const {
    return Cosine(Sum(dot_[0] + dot_[1]), Sum(before_[0] + before_[1]), Sum(after_[0] + after_[1]));
  }

 private:
  template <bool apply, typename S>
  void ClampLanes(S* at, int i) {
    const Lanes x = Load(at);
    const LaneBits below = x<minimum_, above = x> maximum_;
    // Both comparisons are false for NaN, which therefore stays.
    const Lanes y = below ? minimum_ : (above ? maximum_ : x);
    if (apply) Store(y, at);
    clamped_[i] -= below | above;
    dot_[i] += x * y;
    before_[i] += x * x;
    after_[i] += y * y;
  }

  const Lanes minimum_, maximum_;
  Lanes dot_[2] = {}, before_[2] = {}, after_[2] = {};
  LaneBits clamped_[2] = {};
};

class ValueClip final : public ClipPolicy {
 public:
  ValueClip(double minimum, double maximum) : minimum_(minimum), maximum_(maximum) {}

  absl::string_view name() const override { return "value"; }
  PolicyReport Clip(const ClipContext<float>& context) override { return Run<true>(context); }
  PolicyReport Clip(const ClipContext<double>& context) override { return Run<true>(context); }
  PolicyReport Measure(const ClipContext<float>& context) const override {
    return Run<false>(context);
  }
  PolicyReport Measure(const ClipContext<double>& context) const override {
    return Run<false>(context);
  }

 private:
  template <bool apply, typename S>
  PolicyReport Run(const ClipContext<S>& context) const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    // A bound that was not given holds nothing back, not even infinity.
    Clamper clamper(minimum_ == -kInfinity ? minimum_ : BoundAs<S>(minimum_),
                    maximum_ == kInfinity ? maximum_ : BoundAs<S>(maximum_));
    for (const Block<S>& block : context.blocks) clamper.Clamp<apply>(block.gradient);
    PolicyReport report;
    report.clamped = clamper.clamped();
    report.changed = report.clamped > 0;
    report.cosine = clamper.cosine();
    if (!report.changed && report.cosine.has_value()) report.cosine = 1.0;
    return report;
  }

  const double minimum_, maximum_;
};

absl::Status CheckBound(double bound, bool is_minimum) {
  const bool right_sign = is_minimum ? bound <= 0.0 : bound >= 0.0;
  if (std::isfinite(bound) && right_sign) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(is_minimum ? "value.minimum" : "value.maximum",
                                                 ": got ", bound, ", must be finite and ",
                                                 is_minimum ? "at most 0" : "at least 0"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClipPolicy>> NewValueClip(const v1::ValueClip& spec) {
  if (!spec.has_minimum() && !spec.has_maximum()) {
    return absl::InvalidArgumentError("value: needs a minimum, a maximum or both");
  }
  if (spec.has_minimum()) RETURN_IF_ERROR(CheckBound(spec.minimum(), true));
  if (spec.has_maximum()) RETURN_IF_ERROR(CheckBound(spec.maximum(), false));
  if (spec.has_minimum() && spec.has_maximum() && spec.minimum() == spec.maximum()) {
    return absl::InvalidArgumentError(
        "value: minimum and maximum are both 0, which leaves no gradient; one must differ from 0");
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return std::make_unique<ValueClip>(spec.has_minimum() ? spec.minimum() : -kInfinity,
                                     spec.has_maximum() ? spec.maximum() : kInfinity);
}

}  // namespace gradwatch::clip
