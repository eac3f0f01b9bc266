#include "server/web/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"

namespace gradwatch::web {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A plain blocking TCP client.
class Client {
 public:
  explicit Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }

  void Send(const std::string& text) { ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL); }
  // Everything until the server closes.
  std::string ReadAll() {
    std::string all;
    char part[4096];
    for (;;) {
      const ssize_t got = ::recv(socket_, part, sizeof(part), 0);
      if (got <= 0) return all;
      all.append(part, static_cast<size_t>(got));
    }
  }
  // Until `end` was seen.
  std::string ReadUntil(const std::string& end) {
    std::string all;
    char c = 0;
    while (!absl::EndsWith(all, end) && ::recv(socket_, &c, 1, 0) == 1) all.push_back(c);
    return all;
  }

 private:
  const int socket_;
  bool connected_ = false;
};

HttpResponse Echo(const std::string& path) {
  HttpResponse response;
  if (path == "/missing") response.status = 404;
  response.body = absl::StrCat("path=", path, "\n");
  return response;
}

std::unique_ptr<HttpServer> StartServer(HttpOptions options = {}, HttpHandler handler = Echo) {
  auto server = HttpServer::Start(options, std::move(handler));
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

std::string Ask(int port, const std::string& request) {
  Client client(port);
  client.Send(request);
  return client.ReadAll();
}

std::string Get(int port, const std::string& path) {
  return Ask(port, absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
}

TEST(HttpServerTest, AnswersGetWithBodyAndSafeHeaders) {
  const auto server = StartServer();

  const std::string answer = Get(server->port(), "/a?b=c");

  EXPECT_THAT(answer,
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"),
                    HasSubstr("\r\nContent-Type: text/plain; charset=utf-8\r\n"),
                    HasSubstr("\r\nX-Content-Type-Options: nosniff\r\n"),
                    HasSubstr("\r\nCache-Control: no-store\r\n"),
                    HasSubstr("\r\nContent-Length: 8\r\n"), HasSubstr("\r\n\r\npath=/a\n")));
}

TEST(HttpServerTest, HeadHasTheHeadersOnly) {
  const auto server = StartServer();

  const std::string answer =
      Ask(server->port(), "HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

  EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"),
                            HasSubstr("\r\nContent-Length: 8\r\n"), Not(HasSubstr("path="))));
}

TEST(HttpServerTest, HandlerChoosesTheStatus) {
  const auto server = StartServer();

  EXPECT_THAT(Get(server->port(), "/missing"), StartsWith("HTTP/1.1 404 Not Found\r\n"));
}

TEST(HttpServerTest, KeepsTheConnectionForTheNextRequest) {
  const auto server = StartServer();
  Client client(server->port());

  client.Send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string first = client.ReadUntil("path=/1\n");
  client.Send("GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string second = client.ReadAll();

  EXPECT_THAT(first, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(second, HasSubstr("path=/2\n"));
}

TEST(HttpServerTest, RefusesOtherMethods) {
  const auto server = StartServer();

  const std::string answer =
      Ask(server->port(), "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");

  EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 405 Method Not Allowed\r\n"),
                            HasSubstr("\r\nAllow: GET, HEAD\r\n")));
}

TEST(HttpServerTest, RefusesABody) {
  const auto server = StartServer();

  EXPECT_THAT(Ask(server->port(), "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(
      Ask(server->port(), "GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
      StartsWith("HTTP/1.1 413 "));
}

TEST(HttpServerTest, RefusesWhatIsNotHttp) {
  const auto server = StartServer();

  EXPECT_THAT(Ask(server->port(), "\x16\x03\x01 hello\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask(server->port(), "GET a HTTP/1.1\r\nHost: x\r\n\r\n"),
              StartsWith("HTTP/1.1 400 "));
}

TEST(HttpServerTest, RefusesAHeaderThatIsTooLong) {
  const auto server = StartServer();

  const std::string answer =
      Ask(server->port(), "GET /a HTTP/1.1\r\nX-Long: " + std::string(9000, 'x') + "\r\n\r\n");

  EXPECT_THAT(answer, StartsWith("HTTP/1.1 431 "));
}

TEST(HttpServerTest, ClosesAConnectionThatSendsNothing) {
  HttpOptions options;
  options.request_time = absl::Milliseconds(1);
  const auto server = StartServer(options);
  Client client(server->port());

  EXPECT_EQ(client.ReadAll(), "");
}

TEST(HttpServerTest, RefusesConnectionsBeyondTheBound) {
  HttpOptions options;
  options.connections_max = 2;
  const auto server = StartServer(options);
  Client first(server->port()), second(server->port());
  for (Client* client : {&first, &second}) {
    client->Send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_THAT(client->ReadUntil("path=/a\n"), StartsWith("HTTP/1.1 200"));
  }

  Client third(server->port());

  EXPECT_THAT(third.ReadAll(), StartsWith("HTTP/1.1 503 "));
}

TEST(HttpServerTest, ServesManyConnectionsAtOnce) {
  const auto server = StartServer();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<Client>(server->port()));
    clients.back()->Send(absl::StrCat("GET /", i, " HTTP/1.1\r\nHost: x\r\n\r\n"));
  }

  for (int i = 99; i >= 0; --i) {
    EXPECT_THAT(clients[static_cast<size_t>(i)]->ReadUntil(absl::StrCat("path=/", i, "\n")),
                StartsWith("HTTP/1.1 200"));
  }
}

TEST(HttpServerTest, ShutdownClosesOpenConnectionsAndWaitsForTheHandler) {
  absl::Notification asked, go_on;
  const auto server = StartServer({}, [&](const std::string& path) {
    asked.Notify();
    go_on.WaitForNotification();
    return Echo(path);
  });
  Client idle(server->port()), waiting(server->port());
  waiting.Send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  asked.WaitForNotification();
  go_on.Notify();

  server->Shutdown();
  server->Shutdown();

  EXPECT_EQ(idle.ReadAll(), "");
  waiting.ReadAll();  // Ends: an answer or nothing, then the end.
  EXPECT_FALSE(Client(server->port()).connected());
}

TEST(HttpServerTest, PortInUseIsAClearError) {
  const auto server = StartServer();
  HttpOptions options;
  options.port = server->port();

  const auto second = HttpServer::Start(options, Echo);

  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr(absl::StrCat("127.0.0.1:", options.port)),
                    HasSubstr("Address already in use")));
}

TEST(HttpServerTest, RefusesAnAddressThatIsNone) {
  HttpOptions options;
  options.address = "example.com";

  EXPECT_EQ(HttpServer::Start(options, Echo).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradwatch::web
