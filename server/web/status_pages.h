#ifndef GRADWATCH_SERVER_WEB_STATUS_PAGES_H_
#define GRADWATCH_SERVER_WEB_STATUS_PAGES_H_

#include <functional>
#include <string>

#include "server/metrics/metrics.h"
#include "server/web/http_server.h"

namespace gradwatch::web {

// The pages of the server:
//   /         what there is, as text
//   /metrics  for Prometheus
//   /healthz  200 while the process lives
//   /readyz   200 while the server takes work, else 503
// Anything else is 404. `ready` may be called from any thread.
HttpHandler NewStatusPages(metrics::Metrics* metrics, std::function<bool()> ready);

}  // namespace gradwatch::web

#endif  // GRADWATCH_SERVER_WEB_STATUS_PAGES_H_
