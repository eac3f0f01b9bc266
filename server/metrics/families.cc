#include "server/metrics/families.h"

#include "server/base/check.h"

namespace gradwatch::metrics {
namespace {

prometheus::ClientMetric WithLabels(LabelList labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, text] : labels) {
    metric.label.push_back({std::string(name), std::string(text)});
  }
  return metric;
}

}  // namespace

FamilySet FamilySet::Counting() {
  FamilySet set;
  set.only_counts_ = true;
  set.families_.emplace_back().only_counts = true;
  return set;
}

void FamilySet::Family::AddSummary(int64_t count, double sum, LabelList labels) {
  series += 2;  // A sum and a count.
  if (only_counts) return;
  prometheus::ClientMetric metric = WithLabels(labels);
  metric.summary.sample_count = static_cast<uint64_t>(count);
  metric.summary.sample_sum = sum;
  proto.metric.push_back(std::move(metric));
}

void FamilySet::Family::Add(double value, LabelList labels) {
  ++series;
  if (only_counts) return;
  prometheus::ClientMetric metric = WithLabels(labels);
  if (proto.type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  proto.metric.push_back(std::move(metric));
}

FamilySet::Family& FamilySet::Counter(absl::string_view name, absl::string_view help) {
  return Declare(name, help, prometheus::MetricType::Counter);
}

FamilySet::Family& FamilySet::Gauge(absl::string_view name, absl::string_view help) {
  return Declare(name, help, prometheus::MetricType::Gauge);
}

FamilySet::Family& FamilySet::Summary(absl::string_view name, absl::string_view help) {
  return Declare(name, help, prometheus::MetricType::Summary);
}

FamilySet::Family& FamilySet::Declare(absl::string_view name, absl::string_view help,
                                      prometheus::MetricType type) {
  if (only_counts_) return families_.front();
  const auto found = index_.find(name);
  if (found != index_.end()) {
    Family& known = families_[found->second];
    GRADWATCH_CHECK(known.proto.type == type);
    return known;
  }
  index_.emplace(std::string(name), families_.size());
  Family family;
  family.proto.name = std::string(name);
  family.proto.help = std::string(help);
  family.proto.type = type;
  families_.push_back(std::move(family));
  return families_.back();
}

size_t FamilySet::series() const {
  size_t count = 0;
  for (const Family& family : families_) count += family.series;
  return count;
}

std::vector<prometheus::MetricFamily> FamilySet::Take() {
  std::vector<prometheus::MetricFamily> taken;
  for (Family& family : families_) {
    if (!family.proto.metric.empty()) taken.push_back(std::move(family.proto));
  }
  families_.clear();
  index_.clear();
  return taken;
}

}  // namespace gradwatch::metrics
