#ifndef GRADWATCH_TESTS_UNIT_DATA_COMPLETE_JOBS_H_
#define GRADWATCH_TESTS_UNIT_DATA_COMPLETE_JOBS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/data/source.h"

namespace gradwatch::data {

// Jobs with what a source looks at, as if all defaults were filled in.

inline v1::Job BaseJob(int batch_size) {
  v1::Job job;
  job.set_seed(42);
  job.mutable_training()->set_batch_size(batch_size);
  job.mutable_evaluation()->set_examples(1000);
  return job;
}

inline v1::Job AddingJob(int batch_size, int time_steps, int time_steps_min) {
  v1::Job job = BaseJob(batch_size);
  job.mutable_task()->mutable_adding()->set_time_steps(time_steps);
  job.mutable_task()->mutable_adding()->set_time_steps_min(time_steps_min);
  return job;
}

inline v1::Job TemporalOrderJob(int batch_size, int time_steps, int time_steps_min) {
  v1::Job job = BaseJob(batch_size);
  job.mutable_task()->mutable_temporal_order()->set_time_steps(time_steps);
  job.mutable_task()->mutable_temporal_order()->set_time_steps_min(time_steps_min);
  return job;
}

inline v1::Job CopyMemoryJob(int batch_size, int delay) {
  v1::Job job = BaseJob(batch_size);
  job.mutable_task()->mutable_copy_memory()->set_delay(delay);
  return job;
}

inline v1::Job MackeyGlassJob(int batch_size, int time_steps, int horizon, int warmup) {
  v1::Job job = BaseJob(batch_size);
  v1::MackeyGlassTask* task = job.mutable_task()->mutable_mackey_glass();
  task->set_time_steps(time_steps);
  task->set_horizon(horizon);
  task->set_warmup_time_steps(warmup);
  return job;
}

inline v1::Job LanguageJob(int batch_size, int time_steps, double held_out_share) {
  v1::Job job = BaseJob(batch_size);
  v1::LanguageTask* task = job.mutable_task()->mutable_language();
  task->set_dataset("datasets/text");
  task->set_time_steps(time_steps);
  task->set_held_out_share(held_out_share);
  return job;
}

inline v1::Job ForecastJob(int batch_size, int time_steps,
                           const std::vector<std::string>& target_columns) {
  v1::Job job = BaseJob(batch_size);
  v1::ForecastTask* task = job.mutable_task()->mutable_forecast();
  task->set_dataset("datasets/table");
  for (const std::string& column : target_columns) task->add_target_columns(column);
  *task->mutable_input_columns() = task->target_columns();
  task->set_time_steps(time_steps);
  task->set_horizon(1);
  task->set_held_out_share(0.2);
  task->set_warmup_time_steps(0);
  task->set_carry_state(true);
  return job;
}

using Content = std::shared_ptr<const DatasetContent>;

// Of a job and content that are right.
inline std::unique_ptr<Source> SourceOf(const v1::Job& job, Content content = nullptr) {
  return *NewSource(job, std::move(content));
}

}  // namespace gradwatch::data

#endif  // GRADWATCH_TESTS_UNIT_DATA_COMPLETE_JOBS_H_
