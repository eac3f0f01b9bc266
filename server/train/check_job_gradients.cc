#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/base/status.h"
#include "server/data/source.h"
#include "server/nn/gradient_check.h"
#include "server/nn/network.h"
#include "server/train/job_network.h"
#include "server/train/model_tools.h"

namespace gradwatch::train {
namespace {

v1::CheckGradientsResponse ToResponse(const std::vector<nn::TensorCheck>& checks) {
  v1::CheckGradientsResponse response;
  response.set_passed(true);
  for (const nn::TensorCheck& check : checks) {
    v1::CheckGradientsResponse::TensorCheck* tensor = response.add_tensors();
    tensor->set_name(check.name);
    tensor->set_absolute_error(check.worst_absolute);
    tensor->set_relative_error(check.worst_relative);
    tensor->set_entries(check.entries);
    tensor->set_passed(check.worst_excess <= 1.0);
    response.set_passed(response.passed() && tensor->passed());
    response.set_entries(response.entries() + check.entries);
  }
  return response;
}

absl::StatusOr<v1::CheckGradientsResponse> Check(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset,
    const nn::GradientCheckOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<data::Source> source,
                   data::NewSource(job, std::move(dataset)));
  const data::TaskShape& shape = source->shape();
  nn::Network<double> network(NetworkConfigOf(job, shape), shape.rows_max, shape.time_steps);
  network.Initialize(job.seed());
  Batch batch;
  source->NextBatch(&batch);
  return ToResponse(nn::CheckGradients(network, batch, options));
}

}  // namespace

absl::StatusOr<v1::CheckGradientsResponse> CheckJobGradients(
    const v1::Job& job, std::shared_ptr<const data::DatasetContent> dataset, int entries,
    double difference) {
  nn::GradientCheckOptions options;
  options.seed = job.seed();
  options.entries_per_tensor = entries;
  options.step = difference;
  const int64_t begin = absl::GetCurrentTimeNanos();
  absl::StatusOr<v1::CheckGradientsResponse> response =
      absl::ResourceExhaustedError("the memory to check the gradients cannot be had");
  try {
    response = Check(job, std::move(dataset), options);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  if (response.ok()) {
    const int64_t nanos = std::max<int64_t>(0, absl::GetCurrentTimeNanos() - begin);
    response->mutable_duration()->set_seconds(nanos / 1'000'000'000);
    response->mutable_duration()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  }
  return response;
}

}  // namespace gradwatch::train
