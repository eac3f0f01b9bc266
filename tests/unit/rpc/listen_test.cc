#include "server/rpc/listen.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>

#include "server/base/log.h"

namespace gradwatch::rpc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(HostPortTest, ReadsNamesAddressesAndBrackets) {
  const auto v4 = ParseHostPort("127.0.0.1:7070");
  const auto v6 = ParseHostPort("[::1]:0");

  ASSERT_TRUE(v4.ok() && v6.ok());
  EXPECT_EQ(v4->host, "127.0.0.1");
  EXPECT_EQ(v4->port, 7070);
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(ToText(*v4), "127.0.0.1:7070");
  EXPECT_EQ(ToText(*v6), "[::1]:0");
}

TEST(HostPortTest, RefusesWhatIsNoAddress) {
  for (const char* text :
       {"", "7070", ":7070", "host:", "host:x", "host:65536", "host:-1", "::1:7070", "[::1:7070"}) {
    EXPECT_EQ(ParseHostPort(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ListenTest, KnowsLoopback) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "::1", "localhost"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "example.com", "12.7.0.1"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(ListenTest, PlainTextBeyondLoopbackMustBeMeant) {
  const HostPort open{"0.0.0.0", 7070};

  const auto refused = NewServerCredentials(open, {}, false);

  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--insecure-listen"));
  EXPECT_TRUE(NewServerCredentials(open, {}, true).ok());
  EXPECT_TRUE(NewServerCredentials({"127.0.0.1", 7070}, {}, false).ok());
}

TEST(ListenTest, InsecureListenIsLoud) {
  InitLog(LogFormat::kText, LogLevel::kWarning);
  ::testing::internal::CaptureStderr();

  EXPECT_TRUE(CheckPlainText({"0.0.0.0", 7070}, true).ok());

  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("INSECURE"), HasSubstr("0.0.0.0:7070")));
}

TEST(ListenTest, TlsNeedsBothFilesAndTheyMustBePem) {
  const HostPort address{"127.0.0.1", 0};
  const std::string text = ::testing::TempDir() + "/listen_test_not_pem";
  std::ofstream(text) << "hello";

  for (const TlsFiles& files :
       {TlsFiles{text, "", ""}, TlsFiles{"", text, ""}, TlsFiles{"", "", text},
        TlsFiles{text, text, ""}, TlsFiles{"/no/such/file", text, ""}}) {
    EXPECT_EQ(NewServerCredentials(address, files, true).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(ListenTest, BindFailureNamesAddressAndCause) {
  const int held = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(held, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(held, reinterpret_cast<sockaddr*>(&address), &size);

  const absl::Status status = BindFailure({"127.0.0.1", ntohs(address.sin_port)});
  close(held);

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("127.0.0.1:"), HasSubstr("Address already in use")));
}

}  // namespace
}  // namespace gradwatch::rpc
