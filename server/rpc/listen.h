#ifndef GRADWATCH_SERVER_RPC_LISTEN_H_
#define GRADWATCH_SERVER_RPC_LISTEN_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grpc {
class ServerCredentials;
}

namespace gradwatch::rpc {

// Paths of PEM files; all empty means plain text.
struct TlsFiles {
  std::string certificate;  // The server's chain.
  std::string key;
  std::string client_ca;  // Clients must show a certificate that this signed.
                          // Empty: none is asked.
};

// "HOST:PORT" or "[IPv6]:PORT" taken apart. INVALID_ARGUMENT says what is
// wrong.
struct HostPort {
  std::string host;  // Without brackets.
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(absl::string_view address);
std::string ToText(const HostPort& address);

// True for what only this machine can reach: 127.0.0.0/8, ::1 and localhost.
bool IsLoopback(absl::string_view host);

// Plain text beyond loopback: INVALID_ARGUMENT without `insecure_listen`,
// and with it a loud line in the log. Every listening port without TLS, of gRPC
// and HTTP, goes through here.
absl::Status CheckPlainText(const HostPort& address, bool insecure_listen);

// The one place that makes a gRPC port's credentials. Reads the files once.
// What CheckPlainText says when there are none; INVALID_ARGUMENT: a file that
// is missing or is not PEM, a certificate without its key.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> NewServerCredentials(
    const HostPort& address, const TlsFiles& tls, bool insecure_listen);

// Why nobody can bind to this address now, in a sentence that says how to go
// on. For after gRPC failed to, because gRPC does not tell.
absl::Status BindFailure(const HostPort& address);

}  // namespace gradwatch::rpc

#endif  // GRADWATCH_SERVER_RPC_LISTEN_H_
