#ifndef GRADWATCH_SERVER_WEB_HTTP_SERVER_H_
#define GRADWATCH_SERVER_WEB_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gradwatch::web {

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// Answers a GET for a path that starts with "/", without its query. Runs on the
// server's one handler thread, so it may take as long as a scrape takes; the
// connection thread stays free.
using HttpHandler = std::function<HttpResponse(const std::string& path)>;

struct HttpOptions {
  std::string address = "127.0.0.1";  // An IP address, not a name.
  int port = 0;                       // 0: any free one.
  int connections_max = 256;          // Beyond: 503 and closed.
  int header_bytes_max = 8192;        // Beyond: 431 and closed. A body is refused with 413.
  absl::Duration request_time = absl::Seconds(10);   // To send the whole request, idle included.
  absl::Duration response_time = absl::Seconds(10);  // To take the whole answer.
};

// A small HTTP/1.1 server for text that programs and people read: GET and HEAD
// only, keep-alive, everything bounded. Plain text on the wire.
//
// Threads: one for connections, one for the handler; every method may be called
// from any thread.
class HttpServer {
 public:
  // Binds and serves. INVALID_ARGUMENT: not an IP address. FAILED_PRECONDITION:
  // the port is in use or may not be bound; says which and how to go on.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpOptions& options,
                                                           HttpHandler handler);
  // Shuts down.
  virtual ~HttpServer() = default;

  virtual int port() const = 0;

  // Stops listening and closes every connection; waits for a handler that runs.
  // Idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace gradwatch::web

#endif  // GRADWATCH_SERVER_WEB_HTTP_SERVER_H_
