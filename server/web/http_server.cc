#include "server/web/http_server.h"

// First: Asio's headers of this release use std::exchange without including it.
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <limits>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gradwatch::web {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

class Connection;

// What connections share. Used on the connection thread only, but for
// `handler`, which only the handler thread calls.
struct Shared {
  explicit Shared(const HttpOptions& o, HttpHandler h) : options(o), handler(std::move(h)) {}

  const HttpOptions options;
  const HttpHandler handler;
  asio::io_context io{1};
  asio::thread_pool handler_thread{1};
  std::unordered_set<Connection*> connections;
  bool stopping = false;
};

using Response = http::response<http::string_body>;

Response NewResponse(const HttpResponse& content, unsigned version, bool keep_alive) {
  Response response(static_cast<http::status>(content.status), version);
  response.set(http::field::server, "gradwatchd");
  response.set(http::field::content_type, content.content_type);
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  response.set("X-Frame-Options", "DENY");
  response.set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  response.set("Referrer-Policy", "no-referrer");
  response.keep_alive(keep_alive);
  response.body() = content.body;
  return response;
}

HttpResponse Plain(int status, absl::string_view text) {
  HttpResponse response;
  response.status = status;
  response.body = absl::StrCat(text, "\n");
  return response;
}

// What to answer to a request that could not be read; nothing when the peer
// just went away.
std::optional<HttpResponse> AnswerToReadError(const error_code& error) {
  if (error == http::error::header_limit) return Plain(431, "The request's header is too long.");
  if (error == http::error::end_of_stream || error == http::error::partial_message) {
    return std::nullopt;
  }
  if (error.category() == make_error_code(http::error::bad_method).category()) {
    return Plain(400, "This is not an HTTP request.");
  }
  return std::nullopt;
}

// One connection: read, answer, again. It keeps itself alive by the operation
// that is under way, and all its functions run on the connection thread.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Tcp::socket socket, Shared* shared) : stream_(std::move(socket)), shared_(shared) {
    shared_->connections.insert(this);
  }
  ~Connection() { shared_->connections.erase(this); }

  void Read() {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_->options.header_bytes_max));
    // No body is ever read, so its length is judged after the header.
    parser_->body_limit(std::numeric_limits<uint64_t>::max());
    stream_.expires_after(absl::ToChronoNanoseconds(shared_->options.request_time));
    http::async_read_header(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](const error_code& error, size_t) { self->OnRead(error); });
  }

  // Answers without reading, and closes.
  void Refuse(const HttpResponse& content) { Write(NewResponse(content, 11, false), false); }

  void Close() {
    error_code ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_both, ignored);
    stream_.close();
  }

 private:
  void OnRead(const error_code& error) {
    if (error) {
      const auto answer = AnswerToReadError(error);
      if (answer) Refuse(*answer);
      return;
    }
    const auto& request = parser_->get();
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      Response response =
          NewResponse(Plain(405, "Only GET and HEAD are allowed."), request.version(), false);
      response.set(http::field::allow, "GET, HEAD");
      return Write(std::move(response), false);
    }
    if (parser_->chunked() || parser_->content_length().value_or(0) > 0) {
      return Refuse(Plain(413, "A request must not have a body."));
    }
    const std::string target(request.target());
    if (target.empty() || target[0] != '/') {
      return Refuse(Plain(400, "The request's target must be a path."));
    }
    asio::post(shared_->handler_thread, [self = shared_from_this(),
                                         path = target.substr(0, target.find('?'))]() mutable {
      HttpResponse content = self->shared_->handler(path);
      Connection* const connection = self.get();
      asio::post(connection->shared_->io,
                 [self = std::move(self), content = std::move(content)] { self->Answer(content); });
    });
  }

  void Answer(const HttpResponse& content) {
    if (shared_->stopping) return Close();
    const auto& request = parser_->get();
    Write(NewResponse(content, request.version(), request.keep_alive()),
          request.method() == http::verb::head);
  }

  void Write(Response response, bool head) {
    response.prepare_payload();
    response_.emplace(std::move(response));
    serializer_.emplace(*response_);
    stream_.expires_after(absl::ToChronoNanoseconds(shared_->options.response_time));
    const auto done = [self = shared_from_this()](const error_code& error, size_t) {
      self->OnWritten(error);
    };
    if (head) {
      http::async_write_header(stream_, *serializer_, done);
    } else {
      http::async_write(stream_, *serializer_, done);
    }
  }

  void OnWritten(const error_code& error) {
    if (error) return;
    if (response_->keep_alive() && !shared_->stopping) return Read();
    error_code ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
  }

  beast::tcp_stream stream_;
  Shared* const shared_;
  beast::flat_buffer buffer_{65536};
  std::optional<http::request_parser<http::buffer_body>> parser_;
  std::optional<Response> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
};

class BeastServer final : public HttpServer {
 public:
  BeastServer(const HttpOptions& options, HttpHandler handler)
      : shared_(options, std::move(handler)) {}
  ~BeastServer() override { Shutdown(); }

  absl::Status Listen() {
    error_code error;
    const HttpOptions& options = shared_.options;
    const auto address = asio::ip::make_address(options.address, error);
    if (error || options.port < 0 || options.port > 65535) {
      return absl::InvalidArgumentError(absl::StrCat("HTTP address ", options.address, ":",
                                                     options.port,
                                                     ": not an IP address with a "
                                                     "port from 0 to 65535"));
    }
    const Tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) port_ = acceptor_.local_endpoint(error).port();
    if (error) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot listen for HTTP on ", options.address, ":", options.port, ": ",
                       error.message(), "; stop what listens there or choose another port"));
    }
    Accept();
    thread_ = std::thread([this] { shared_.io.run(); });
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Shutdown() override {
    if (!thread_.joinable()) return;
    asio::post(shared_.io, [this] {
      shared_.stopping = true;
      error_code ignored;
      acceptor_.close(ignored);
      accept_again_.cancel();
      for (Connection* connection : shared_.connections) connection->Close();
    });
    // The connection thread ends when no operation is left: a handler under way
    // may still post its answer, so it is waited for on both sides.
    shared_.handler_thread.join();
    thread_.join();
    shared_.io.restart();
    shared_.io.run();
  }

 private:
  void Accept() {
    acceptor_.async_accept([this](const error_code& error, Tcp::socket socket) {
      if (shared_.stopping) return;
      // Out of descriptors, say: the listening socket is fine, so try again a
      // little later.
      if (error) return AcceptLater();
      const bool full =
          static_cast<int>(shared_.connections.size()) >= shared_.options.connections_max;
      const auto connection = std::make_shared<Connection>(std::move(socket), &shared_);
      if (full) {
        connection->Refuse(Plain(503, "Too many connections."));
      } else {
        connection->Read();
      }
      Accept();
    });
  }

  void AcceptLater() {
    accept_again_.expires_after(std::chrono::milliseconds(100));
    accept_again_.async_wait([this](const error_code& error) {
      if (!error && !shared_.stopping) Accept();
    });
  }

  Shared shared_;
  Tcp::acceptor acceptor_{shared_.io};
  asio::steady_timer accept_again_{shared_.io};
  int port_ = 0;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpOptions& options,
                                                              HttpHandler handler) {
  auto server = std::make_unique<BeastServer>(options, std::move(handler));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace gradwatch::web
