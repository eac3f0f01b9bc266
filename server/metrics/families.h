#ifndef GRADWATCH_SERVER_METRICS_FAMILIES_H_
#define GRADWATCH_SERVER_METRICS_FAMILIES_H_

#include <deque>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "prometheus/metric_family.h"

namespace gradwatch::metrics {

using LabelList = std::initializer_list<std::pair<absl::string_view, absl::string_view>>;

// Metric families under construction, in order of first use: the first call
// for a name sets its help and type.
// Threads: one at a time.
class FamilySet {
 public:
  struct Family {
    prometheus::MetricFamily proto;
    size_t series = 0;         // That were added, whether kept or not.
    bool only_counts = false;  // Keeps none.

    void Add(double value, LabelList labels = {});
    // Of a summary.
    void AddSummary(int64_t count, double sum, LabelList labels);
  };

  // A set that counts series and keeps none, which takes a fraction of the time.
  static FamilySet Counting();

  // The family `name`; its help and type are those of the first call. Valid until Take.
  Family& Counter(absl::string_view name, absl::string_view help);
  Family& Gauge(absl::string_view name, absl::string_view help);
  Family& Summary(absl::string_view name, absl::string_view help);

  // Series in all families.
  size_t series() const;

  // Those that have series; leaves this empty.
  std::vector<prometheus::MetricFamily> Take();

 private:
  Family& Declare(absl::string_view name, absl::string_view help, prometheus::MetricType type);

  std::deque<Family> families_;  // A family stays where it is when others come.
  bool only_counts_ = false;     // Then one stands for all.
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace gradwatch::metrics

#endif  // GRADWATCH_SERVER_METRICS_FAMILIES_H_
