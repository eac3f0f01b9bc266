#include "server/rpc/listen.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grpcpp/security/server_credentials.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace gradwatch::rpc {
namespace {

absl::StatusOr<std::string> ReadPem(const std::string& path, absl::string_view what) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || text.str().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", path, ": cannot be read"));
  }
  if (!absl::StrContains(text.str(), "-----BEGIN ")) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", path, ": not a PEM file"));
  }
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> NewTlsCredentials(const TlsFiles& tls) {
  if (tls.certificate.empty() || tls.key.empty()) {
    return absl::InvalidArgumentError(
        "TLS needs a certificate and its key: give both, and a client CA only "
        "with them");
  }
  grpc::SslServerCredentialsOptions options(
      tls.client_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                            : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ASSIGN_OR_RETURN(std::string certificate, ReadPem(tls.certificate, "TLS certificate"));
  ASSIGN_OR_RETURN(std::string key, ReadPem(tls.key, "TLS key"));
  if (!tls.client_ca.empty()) {
    ASSIGN_OR_RETURN(options.pem_root_certs, ReadPem(tls.client_ca, "TLS client CA"));
  }
  options.pem_key_cert_pairs.push_back({std::move(key), std::move(certificate)});
  return grpc::SslServerCredentials(options);
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(absl::string_view address) {
  const auto error = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("address '", address, "': ", why,
                                                   "; expected HOST:PORT, such as "
                                                   "127.0.0.1:7070 or [::1]:7070"));
  };
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return error("no port");
  HostPort result;
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "]")) return error("the bracket is not closed");
  } else if (absl::StrContains(host, ':')) {
    return error("an IPv6 address needs brackets");
  }
  if (host.empty()) return error("no host");
  const absl::string_view port = address.substr(colon + 1);
  if (!absl::SimpleAtoi(port, &result.port) || result.port < 0 || result.port > 65535) {
    return error("the port is not a number from 0 to 65535");
  }
  result.host = std::string(host);
  return result;
}

std::string ToText(const HostPort& address) {
  const bool v6 = absl::StrContains(address.host, ':');
  return absl::StrCat(v6 ? "[" : "", address.host, v6 ? "]:" : ":", address.port);
}

bool IsLoopback(absl::string_view host) {
  return absl::StartsWith(host, "127.") || host == "::1" || host == "localhost";
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> NewServerCredentials(
    const HostPort& address, const TlsFiles& tls, bool insecure_listen) {
  if (!tls.certificate.empty() || !tls.key.empty() || !tls.client_ca.empty()) {
    return NewTlsCredentials(tls);
  }
  RETURN_IF_ERROR(CheckPlainText(address, insecure_listen));
  return grpc::InsecureServerCredentials();
}

absl::Status CheckPlainText(const HostPort& address, bool insecure_listen) {
  if (IsLoopback(address.host)) return absl::OkStatus();
  if (!insecure_listen) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToText(address),
                     " can be reached from other machines, and without TLS "
                     "anybody there could "
                     "read and control everything; use --tls-cert and "
                     "--tls-key, or say --insecure-listen if "
                     "the network is trusted"));
  }
  Log(LogLevel::kWarning,
      "INSECURE: %s is plain text without authentication, and other machines "
      "can reach it",
      ToText(address));
  return absl::OkStatus();
}

absl::Status BindFailure(const HostPort& address) {
  addrinfo hints = {};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  std::string why;
  const std::string port = absl::StrCat(address.port);
  const int code = getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found);
  if (code != 0) {
    why = gai_strerror(code);
  } else {
    const int probe = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    const bool bound = probe >= 0 && bind(probe, found->ai_addr, found->ai_addrlen) == 0;
    if (!bound) why = std::strerror(errno);
    if (probe >= 0) close(probe);
    freeaddrinfo(found);
  }
  if (why.empty()) why = "gRPC refused the address or the TLS files";
  return absl::FailedPreconditionError(
      absl::StrCat("cannot listen for gRPC on ", ToText(address), ": ", why,
                   "; stop what listens there or choose another port with --listen"));
}

}  // namespace gradwatch::rpc
