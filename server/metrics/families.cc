#include "server/metrics/families.h"

#include "server/base/check.h"

namespace gradwatch::metrics {

void FamilySet::Family::Add(double value, LabelList labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, text] : labels) {
    metric.label.push_back({std::string(name), std::string(text)});
  }
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
  for (const Family& family : families_) count += family.proto.metric.size();
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
