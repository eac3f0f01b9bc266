#include "server/web/status_pages.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/version.h"

namespace gradwatch::web {
namespace {

std::string IndexText() {
  return absl::StrCat("gradwatchd ", Version(), " (", Revision(), ")\n\n",
                      "/metrics  statistics for Prometheus\n"
                      "/healthz  200 while the process lives\n"
                      "/readyz   200 while the server takes work\n\n"
                      "Jobs are driven over gRPC: see `gradwatch --help`.\n");
}

HttpResponse Text(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

}  // namespace

HttpHandler NewStatusPages(metrics::Metrics* metrics, std::function<bool()> ready) {
  return [metrics, ready = std::move(ready)](const std::string& path) {
    if (path == "/") return Text(200, IndexText());
    if (path == "/healthz") return Text(200, "ok\n");
    if (path == "/readyz") return ready() ? Text(200, "ready\n") : Text(503, "not ready\n");
    if (path != "/metrics") return Text(404, "There is no such page; / lists what there is.\n");
    HttpResponse response = Text(200, metrics->Render());
    response.content_type = metrics::Metrics::kContentType;
    return response;
  };
}

}  // namespace gradwatch::web
