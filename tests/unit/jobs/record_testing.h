#ifndef GRADWATCH_TESTS_UNIT_JOBS_RECORD_TESTING_H_
#define GRADWATCH_TESTS_UNIT_JOBS_RECORD_TESTING_H_

#include <memory>

#include "server/jobs/step_record.h"

namespace gradwatch::jobs {

inline std::shared_ptr<const StepRecord> RecordOf(v1::StepStats stats) {
  return RecordMaker().Make(&stats);
}

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_TESTS_UNIT_JOBS_RECORD_TESTING_H_
