#include "server/daemon.h"

#include <cstdio>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/alerts/rule_catalogue.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/version.h"
#include "server/metrics/metrics.h"
#include "server/web/http_server.h"
#include "server/web/status_pages.h"

namespace gradwatch {
namespace {

metrics::MetricsOptions NewMetricsOptions() {
  metrics::MetricsOptions options;
  options.version = Version();
  options.revision = Revision();
  return options;
}

}  // namespace

class Daemon::Impl {
 public:
  explicit Impl(const DaemonOptions& options)
      : datasets_(options.datasets, &clock_),
        jobs_(options.jobs, &datasets_, &clock_),
        metrics_(
            NewMetricsOptions(), alerts::RuleCatalogue(),
            [this] { return metrics::ReadJobs(jobs_); }, &clock_) {}

  absl::Status Listen(const DaemonOptions& options) {
    ASSIGN_OR_RETURN(grpc_address_, rpc::ParseHostPort(options.rpc.listen));
    ASSIGN_OR_RETURN(http_address_, rpc::ParseHostPort(options.http_listen));
    RETURN_IF_ERROR(rpc::CheckPlainText(http_address_, options.rpc.insecure_listen));
    ASSIGN_OR_RETURN(rpc_, rpc::Server::Start(options.rpc, &jobs_, &datasets_, &metrics_));
    grpc_address_.port = rpc_->port();
    web::HttpOptions http;
    http.address = http_address_.host == "localhost" ? "127.0.0.1" : http_address_.host;
    http.port = http_address_.port;
    ASSIGN_OR_RETURN(http_, web::HttpServer::Start(http, web::NewStatusPages(&metrics_, [this] {
                                                     return rpc_->ready();
                                                   })));
    http_address_.port = http_->port();
    rpc_->SetReady(true);
    return absl::OkStatus();
  }

  void Shutdown(absl::Duration grace) {
    rpc_->Shutdown(grace);
    http_->Shutdown();
  }

  const rpc::HostPort& grpc_address() const { return grpc_address_; }
  const rpc::HostPort& http_address() const { return http_address_; }

 private:
  const RealClock clock_;
  jobs::DatasetStore datasets_;
  jobs::JobManager jobs_;
  metrics::Metrics metrics_;
  rpc::HostPort grpc_address_;
  rpc::HostPort http_address_;
  std::unique_ptr<rpc::Server> rpc_;
  std::unique_ptr<web::HttpServer> http_;
};

Daemon::Daemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Daemon::~Daemon() = default;

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const DaemonOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  RETURN_IF_ERROR(impl->Listen(options));
  return std::unique_ptr<Daemon>(new Daemon(std::move(impl)));
}

std::string Daemon::grpc_address() const { return rpc::ToText(impl_->grpc_address()); }
std::string Daemon::http_address() const { return rpc::ToText(impl_->http_address()); }
void Daemon::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

absl::Status WritePortFile(const std::string& path, const Daemon& daemon) {
  const std::string part = path + ".part";
  std::ofstream out(part);
  out << "{\"grpc\":\"" << daemon.grpc_address() << "\",\"http\":\"" << daemon.http_address()
      << "\"}\n";
  out.close();
  if (!out || std::rename(part.c_str(), path.c_str()) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("port file ", path, ": cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace gradwatch
