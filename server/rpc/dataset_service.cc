#include "absl/strings/str_cat.h"
#include "google/protobuf/empty.pb.h"
#include "gradwatch/v1/dataset_service.grpc.pb.h"
#include "proto/support/errors.h"
#include "server/base/check.h"
#include "server/rpc/service_context.h"
#include "server/rpc/stream_hub.h"
#include "server/rpc/unary.h"

namespace gradwatch::rpc {
namespace {

constexpr size_t kChunkBytesMax = 1 << 20;

// One upload: read a part, handle it on a pool, read the next. A part that is
// read is the only thing under way, so nothing overlaps but cancellation, which
// only makes the next read fail.
class UploadCall final : public grpc::ServerReadReactor<v1::UploadDatasetRequest>, public Stream {
 public:
  UploadCall(const ServiceContext& services, metrics::RpcMethod* method,
             grpc::CallbackServerContext* context, v1::Dataset* response)
      : services_(services), method_(method), context_(context), response_(response) {}

  UploadCall* Start() {
    method_->Started();
    if (absl::Status status = services_.streams->Add(this); !status.ok()) {
      FinishNow(status);
    } else {
      StartRead(&part_);
    }
    return this;
  }

  void OnReadDone(bool ok) override {
    SetReading(false);
    const bool scheduled = services_.streams->pool()->Schedule([this, ok] {
      if (ok) {
        HandlePart();
      } else {
        HandleEnd();
      }
    });
    GRADWATCH_CHECK(scheduled);
  }
  void OnCancel() override {}
  void OnDone() override {
    services_.streams->Remove(this);
    delete this;
  }

  void Tick(Time now) override {
    MutexLock lock(&mu_);
    if (!reading_) return;
    const auto idle_max = absl::ToChronoNanoseconds(services_.streams->options().upload_idle_max);
    if (now - reading_since_ > idle_max) context_->TryCancel();
  }
  void End(const absl::Status& status) override {
    {
      MutexLock lock(&mu_);
      end_ = status;
    }
    context_->TryCancel();
  }

 private:
  ~UploadCall() override = default;

  void SetReading(bool reading) {
    MutexLock lock(&mu_);
    reading_ = reading;
    reading_since_ = std::chrono::steady_clock::now();
  }

  void HandlePart() {
    if (absl::Status status = Accept(); !status.ok()) return FinishNow(status);
    part_.Clear();
    SetReading(true);
    StartRead(&part_);
  }

  absl::Status Accept() {
    if (upload_ == nullptr) {
      if (!part_.has_header()) {
        return InvalidFields({{"header", "missing: the first message must be the header"}});
      }
      auto upload = services_.datasets->StartUpload(part_.header());
      if (upload.ok()) upload_ = *std::move(upload);
      return upload.status();
    }
    if (part_.has_header()) {
      return InvalidFields({{"header", "sent twice: only the first message may have one"}});
    }
    if (part_.chunk().size() > kChunkBytesMax) {
      return InvalidFields(
          {{"chunk",
            absl::StrCat(part_.chunk().size(), " bytes; a chunk has at most ", kChunkBytesMax)}});
    }
    return upload_->Add(part_.chunk());
  }

  // The client has sent everything, or went away.
  void HandleEnd() {
    if (absl::Status end = EndStatus(); !end.ok()) return FinishNow(end);
    if (context_->IsCancelled()) return FinishNow(absl::CancelledError("the sender went away"));
    if (upload_ == nullptr) {
      return FinishNow(
          InvalidFields({{"header", "missing: the first message must be the header"}}));
    }
    absl::StatusOr<v1::Dataset> dataset = upload_->Finish();
    if (dataset.ok()) *response_ = *std::move(dataset);
    FinishNow(dataset.status());
  }

  absl::Status EndStatus() {
    MutexLock lock(&mu_);
    return end_;
  }

  // The last thing that happens here: after Finish this object may be gone.
  void FinishNow(const absl::Status& status) {
    upload_.reset();
    method_->Handled(static_cast<int>(status.code()));
    Finish(ToGrpcStatus(status));
  }

  const ServiceContext services_;
  metrics::RpcMethod* const method_;
  grpc::CallbackServerContext* const context_;
  v1::Dataset* const response_;
  v1::UploadDatasetRequest part_;
  std::unique_ptr<jobs::DatasetStore::Upload> upload_;

  // Leaf lock.
  Mutex mu_;
  absl::Status end_ ABSL_GUARDED_BY(mu_);
  bool reading_ ABSL_GUARDED_BY(mu_) = true;
  Time reading_since_ ABSL_GUARDED_BY(mu_) = std::chrono::steady_clock::now();
};

class DatasetService final : public v1::DatasetService::CallbackService {
 public:
  explicit DatasetService(const ServiceContext& services)
      : services_(services),
        methods_(v1::GetDatasetRequest::descriptor()->file()->FindServiceByName("DatasetService"),
                 services.metrics) {}

  grpc::ServerReadReactor<v1::UploadDatasetRequest>* UploadDataset(
      grpc::CallbackServerContext* context, v1::Dataset* response) override {
    return (new UploadCall(services_, methods_["UploadDataset"], context, response))->Start();
  }

  grpc::ServerUnaryReactor* GetDataset(grpc::CallbackServerContext* context,
                                       const v1::GetDatasetRequest* request,
                                       v1::Dataset* response) override {
    return RunUnary(services_.reads, methods_["GetDataset"], context, request, response,
                    [this](const auto& r) { return services_.datasets->Get(r.name()); });
  }

  grpc::ServerUnaryReactor* ListDatasets(grpc::CallbackServerContext* context,
                                         const v1::ListDatasetsRequest* request,
                                         v1::ListDatasetsResponse* response) override {
    return RunUnary(services_.reads, methods_["ListDatasets"], context, request, response,
                    [this](const auto& r) { return services_.datasets->List(r); });
  }

  grpc::ServerUnaryReactor* DeleteDataset(grpc::CallbackServerContext* context,
                                          const v1::DeleteDatasetRequest* request,
                                          google::protobuf::Empty* response) override {
    return RunUnary(services_.reads, methods_["DeleteDataset"], context, request, response,
                    [this](const auto& r) -> absl::StatusOr<google::protobuf::Empty> {
                      const absl::Status status = services_.datasets->Delete(r.name());
                      if (!status.ok()) return status;
                      return google::protobuf::Empty();
                    });
  }

 private:
  const ServiceContext services_;
  const MethodTable methods_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewDatasetService(const ServiceContext& context) {
  return std::make_unique<DatasetService>(context);
}

}  // namespace gradwatch::rpc
