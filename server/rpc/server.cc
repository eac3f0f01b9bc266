#include "server/rpc/server.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "grpc/health/v1/health.pb.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "proto/support/errors.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/thread_pool.h"
#include "server/rpc/service_context.h"

namespace gradwatch::rpc {
namespace {

// Linking gRPC's reflection switches it on for every server of the process;
// this switches it off for one.
class NoReflectionOption final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    const std::string name = grpc::reflection::ProtoServerReflectionPlugin().name();
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(),
                                  [&](const auto& plugin) { return plugin->name() == name; }),
                   plugins->end());
  }
};

// gRPC prints to standard error by itself; what it says is for those who look
// for it, and what matters of it comes as a status.
void ForwardLog(gpr_log_func_args* line) {
  Log(LogLevel::kDebug, "gRPC: %s:%d: %s", line->file, line->line, line->message);
}

void SetLimits(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(4 << 20);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
  // Two servers must not share a port silently.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A reader that vanished behind a proxy is noticed, and a client that pings
  // as often as ours do is not taken for an attacker.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
}

// One listening port with its own copy of the services: a service belongs to
// one grpc::Server.
struct Port {
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  int number = 0;
};

absl::Status Open(const std::string& listen, bool insecure_listen, const TlsFiles& tls,
                  const ServiceContext& context, Port* port) {
  ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(listen));
  ASSIGN_OR_RETURN(const auto credentials, NewServerCredentials(address, tls, insecure_listen));
  grpc::ServerBuilder builder;
  SetLimits(&builder);
  builder.AddListeningPort(ToText(address), credentials, &port->number);
  port->services.push_back(NewJobService(context));
  port->services.push_back(NewStatsService(context));
  port->services.push_back(NewAlertService(context));
  port->services.push_back(NewDatasetService(context));
  port->services.push_back(NewModelService(context));
  for (const auto& service : port->services) builder.RegisterService(service.get());
  // Links the health service's descriptor, which reflection would miss.
  grpc::health::v1::HealthCheckRequest::descriptor();
  if (!IsLoopback(address.host)) {
    builder.SetOption(std::make_unique<NoReflectionOption>());
  }
  port->server = builder.BuildAndStart();
  if (port->server == nullptr || port->number == 0) return BindFailure(address);
  return absl::OkStatus();
}

absl::Status ShuttingDownError() {
  return WithRetryDelay(ErrorWithReason(absl::StatusCode::kUnavailable,
                                        "the server is shutting down", "SHUTTING_DOWN"),
                        absl::Seconds(5));
}

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, jobs::JobManager* jobs, jobs::DatasetStore* datasets,
       metrics::Metrics* metrics)
      : jobs_(jobs),
        reads_(options.pools.reads_threads, static_cast<size_t>(options.pools.reads_queued_max)),
        control_(options.pools.control_threads,
                 static_cast<size_t>(options.pools.control_queued_max)),
        heavy_(options.pools.heavy_threads, static_cast<size_t>(options.pools.heavy_queued_max)),
        hub_(options.streams, metrics),
        context_{jobs, datasets, metrics, &reads_, &control_, &heavy_, &hub_} {}

  ~Impl() {
    if (opened_) Shutdown(absl::Seconds(1));
  }

  absl::Status Open(const ServerOptions& options) {
    gpr_set_log_function(ForwardLog);
    grpc::EnableDefaultHealthCheckService(true);
    RETURN_IF_ERROR(
        rpc::Open(options.listen, options.insecure_listen, options.tls, context_, &main_));
    if (!options.admin_listen.empty()) {
      ASSIGN_OR_RETURN(const HostPort admin, ParseHostPort(options.admin_listen));
      if (!IsLoopback(admin.host)) {
        return absl::InvalidArgumentError("the admin port must be on a loopback address");
      }
      RETURN_IF_ERROR(rpc::Open(options.admin_listen, false, TlsFiles(), context_, &admin_));
    }
    SetReady(false);
    opened_ = true;
    return absl::OkStatus();
  }

  void SetReady(bool ready) {
    ready_ = ready;
    for (const Port* port : {&main_, &admin_}) {
      if (port->server == nullptr) continue;
      port->server->GetHealthCheckService()->SetServingStatus(kReadinessService, ready);
    }
  }

  void Shutdown(absl::Duration grace) {
    if (shut_down_.exchange(true)) return;
    SetReady(false);
    jobs_->Shutdown();
    hub_.EndAll(ShuttingDownError());
    const auto deadline = absl::ToChronoTime(absl::Now() + grace);
    for (const Port* port : {&admin_, &main_}) {
      if (port->server != nullptr) port->server->Shutdown(deadline);
    }
  }

  int port() const { return main_.number; }
  int admin_port() const { return admin_.number; }
  bool ready() const { return ready_; }

 private:
  jobs::JobManager* const jobs_;
  ThreadPool reads_;
  ThreadPool control_;
  ThreadPool heavy_;
  StreamHub hub_;
  const ServiceContext context_;
  bool opened_ = false;  // Constant after Open.
  // Gone first: no call reaches the pools then.
  Port main_;
  Port admin_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> shut_down_{false};
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      jobs::JobManager* jobs,
                                                      jobs::DatasetStore* datasets,
                                                      metrics::Metrics* metrics) {
  auto impl = std::make_unique<Impl>(options, jobs, datasets, metrics);
  RETURN_IF_ERROR(impl->Open(options));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::port() const { return impl_->port(); }
int Server::admin_port() const { return impl_->admin_port(); }
void Server::SetReady(bool ready) { impl_->SetReady(ready); }
bool Server::ready() const { return impl_->ready(); }
void Server::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace gradwatch::rpc
