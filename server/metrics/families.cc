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

void FamilySet::Family::AddSummary(int64_t count, double sum, LabelList labels) {
  prometheus::ClientMetric metric = WithLabels(labels);
  metric.summary.sample_count = static_cast<uint64_t>(count);
  metric.summary.sample_sum = sum;
  proto.metric.push_back(std::move(metric));
}

void FamilySet::Family::Add(double value, LabelList labels) {
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
  const auto found = index_.find(name);
  if (found != index_.end()) return families_[found->second];
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
  for (const Family& family : families_) {
    const bool summary = family.proto.type == prometheus::MetricType::Summary;
    count += family.proto.metric.size() * (summary ? 2 : 1);  // A sum and a count.
  }
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

void FamilySet::Merge(FamilySet other) {
  for (Family& from : other.families_) {
    Family& to = Declare(from.proto.name, from.proto.help, from.proto.type);
    GRADWATCH_CHECK(to.proto.type == from.proto.type);
    for (auto& metric : from.proto.metric) to.proto.metric.push_back(std::move(metric));
  }
}

}  // namespace gradwatch::metrics
