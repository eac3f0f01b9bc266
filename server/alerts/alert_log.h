#ifndef GRADWATCH_SERVER_ALERTS_ALERT_LOG_H_
#define GRADWATCH_SERVER_ALERTS_ALERT_LOG_H_

#include <cstdint>
#include <deque>
#include <string>

#include "gradwatch/v1/alert.pb.h"
#include "server/stats/state_bytes.h"

namespace gradwatch::alerts {

// The alerts of one job, numbered from 1 and bounded in number. One thread at a time.
class AlertLog {
 public:
  // Keeps at most `alerts_max`: resolved ones are forgotten first, oldest first.
  AlertLog(std::string job_name, int alerts_max)
      : job_name_(std::move(job_name)), alerts_max_(alerts_max) {}

  // Adds an empty alert that has its name; returns its number.
  int64_t Add();
  // Null when it was forgotten. Valid until the next Add.
  v1::Alert* Find(int64_t number);

  const std::deque<v1::Alert>& alerts() const { return alerts_; }
  int64_t forgotten() const { return forgotten_; }

  void SaveState(stats::StateWriter* writer) const;
  void LoadState(stats::StateReader* reader);

 private:
  void ForgetOne();

  std::string job_name_;
  int alerts_max_;
  std::deque<v1::Alert> alerts_;
  std::deque<int64_t> numbers_;  // Of alerts_, ascending.
  int64_t last_number_ = 0;
  int64_t forgotten_ = 0;
};

}  // namespace gradwatch::alerts

#endif  // GRADWATCH_SERVER_ALERTS_ALERT_LOG_H_
