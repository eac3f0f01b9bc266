#ifndef GRADWATCH_SERVER_RPC_SERVICE_CONTEXT_H_
#define GRADWATCH_SERVER_RPC_SERVICE_CONTEXT_H_

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "server/base/thread_pool.h"
#include "server/jobs/dataset_store.h"
#include "server/jobs/job_manager.h"
#include "server/metrics/metrics.h"

namespace grpc {
class Service;
}

namespace gradwatch::rpc {

class StreamHub;

// What the services work with. Nothing here is owned; all of it outlives the
// services.
//
// The pools are apart so that one kind of call cannot starve another: reads
// answer at once, control calls wait up to 5 s for a step boundary, heavy ones
// compute.
struct ServiceContext {
  jobs::JobManager* jobs = nullptr;
  jobs::DatasetStore* datasets = nullptr;
  metrics::Metrics* metrics = nullptr;
  ThreadPool* reads = nullptr;
  ThreadPool* control = nullptr;
  ThreadPool* heavy = nullptr;
  StreamHub* streams = nullptr;
};

// The counters of every method of one service, by name. Immutable, so safe from
// any thread.
class MethodTable {
 public:
  MethodTable(const google::protobuf::ServiceDescriptor* service, metrics::Metrics* metrics);

  // Requires that the service has such a method.
  metrics::RpcMethod* operator[](absl::string_view method) const;

 private:
  absl::flat_hash_map<std::string, metrics::RpcMethod*> methods_;
};

// RESOURCE_EXHAUSTED with RetryInfo: too many calls wait already.
absl::Status BusyError();

// The services, one for each .proto file.
std::unique_ptr<grpc::Service> NewJobService(const ServiceContext& context);
std::unique_ptr<grpc::Service> NewStatsService(const ServiceContext& context);
std::unique_ptr<grpc::Service> NewAlertService(const ServiceContext& context);
std::unique_ptr<grpc::Service> NewDatasetService(const ServiceContext& context);
std::unique_ptr<grpc::Service> NewModelService(const ServiceContext& context);

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_SERVICE_CONTEXT_H_
