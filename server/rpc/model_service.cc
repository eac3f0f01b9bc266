#include <algorithm>
#include <atomic>

#include "gradwatch/v1/model_service.grpc.pb.h"
#include "server/rpc/service_context.h"
#include "server/rpc/unary.h"
#include "server/rpc/write_stream.h"
#include "server/train/model_tools.h"

namespace gradwatch::rpc {
namespace {

constexpr size_t kChunkBytes = 256 << 10;

// Each download under way holds a copy of its file; beyond this many: RESOURCE_EXHAUSTED.
constexpr int kDownloadsMax = 16;

class DownloadCall final : public WriteStream<v1::DownloadModelResponse> {
 public:
  DownloadCall(const ServiceContext& services, metrics::RpcMethod* method,
               grpc::CallbackServerContext* context, const v1::DownloadModelRequest& request,
               std::atomic<int>* downloads)
      : WriteStream(services.streams, method, context),
        services_(services),
        request_(request),
        downloads_(downloads) {}

 private:
  absl::Status Open() override {
    if (downloads_->fetch_add(1) >= kDownloadsMax) {
      downloads_->fetch_sub(1);
      return BusyError();
    }
    counted_ = true;
    const auto weights = services_.jobs->GetWeights(request_.name());
    if (!weights.ok()) return weights.status();
    file_ = train::ToSafetensors(weights->job, *weights->checkpoint);
    step_ = weights->checkpoint->step();
    return absl::OkStatus();
  }

  absl::StatusOr<Pulled> Pull(v1::DownloadModelResponse* response) override {
    if (sent_ == file_.size()) return Pulled::kEnd;
    response->Clear();
    if (sent_ == 0) {
      response->set_size_bytes(static_cast<int64_t>(file_.size()));
      response->set_step(step_);
    }
    const size_t bytes = std::min(kChunkBytes, file_.size() - sent_);
    response->set_chunk(file_.data() + sent_, bytes);
    sent_ += bytes;
    return Pulled::kMessage;
  }

  bool Heartbeat(v1::DownloadModelResponse*) override { return false; }

  void Close() override {
    file_ = std::string();
    if (counted_) downloads_->fetch_sub(1);
  }

  const ServiceContext services_;
  const v1::DownloadModelRequest request_;
  std::atomic<int>* const downloads_;
  bool counted_ = false;
  std::string file_;
  size_t sent_ = 0;
  int64_t step_ = 0;
};

class ModelService final : public v1::ModelService::CallbackService {
 public:
  explicit ModelService(const ServiceContext& services)
      : services_(services),
        methods_(v1::GenerateRequest::descriptor()->file()->FindServiceByName("ModelService"),
                 services.metrics) {}

  grpc::ServerWriteReactor<v1::DownloadModelResponse>* DownloadModel(
      grpc::CallbackServerContext* context, const v1::DownloadModelRequest* request) override {
    return (new DownloadCall(services_, methods_["DownloadModel"], context, *request, &downloads_))
        ->Start(services_.control);
  }

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context,
                                     const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override {
    return RunUnary(services_.heavy, methods_["Generate"], context, request, response,
                    [this](const auto& r) { return services_.jobs->Generate(r); });
  }

 private:
  const ServiceContext services_;
  const MethodTable methods_;
  std::atomic<int> downloads_{0};  // Under way.
};

}  // namespace

std::unique_ptr<grpc::Service> NewModelService(const ServiceContext& context) {
  return std::make_unique<ModelService>(context);
}

}  // namespace gradwatch::rpc
