#include "server/daemon_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace gradwatch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Environment = std::map<std::string, std::string>;

CommandLine Parse(const std::vector<std::string>& arguments, const Environment& environment = {}) {
  return ParseCommandLine(arguments, [&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(CommandLineTest, DefaultsServeOnLoopback) {
  const CommandLine line = Parse({});

  EXPECT_FALSE(line.exit_code.has_value());
  EXPECT_EQ(line.options.rpc.listen, "127.0.0.1:7070");
  EXPECT_EQ(line.options.http_listen, "127.0.0.1:7071");
  EXPECT_FALSE(line.options.rpc.insecure_listen);
}

TEST(CommandLineTest, TakesEveryFlag) {
  const CommandLine line =
      Parse({"--listen=127.0.0.1:0", "--http-listen", "[::1]:9", "--admin-listen=127.0.0.1:1",
             "--insecure-listen", "--tls-cert=c", "--tls-key=k", "--tls-client-ca=a", "--cores=2",
             "--running-jobs=3", "--queued-jobs=4", "--job-memory=5KiB", "--total-memory=6M",
             "--history-bytes=7", "--dataset-bytes=1TiB", "--grace-period=90s", "--log-format=json",
             "--log-level=error", "--port-file=p"});

  ASSERT_FALSE(line.exit_code.has_value()) << line.output;
  const DaemonOptions& options = line.options;
  EXPECT_EQ(options.rpc.listen, "127.0.0.1:0");
  EXPECT_EQ(options.http_listen, "[::1]:9");
  EXPECT_EQ(options.rpc.admin_listen, "127.0.0.1:1");
  EXPECT_TRUE(options.rpc.insecure_listen);
  EXPECT_EQ(options.rpc.tls.certificate, "c");
  EXPECT_EQ(options.rpc.tls.key, "k");
  EXPECT_EQ(options.rpc.tls.client_ca, "a");
  EXPECT_EQ(options.jobs.cores, 2);
  EXPECT_EQ(options.jobs.running_max, 3);
  EXPECT_EQ(options.jobs.queued_max, 4);
  EXPECT_EQ(options.jobs.job_bytes_max, 5 * 1024);
  EXPECT_EQ(options.jobs.total_bytes_max, 6 * 1024 * 1024);
  EXPECT_EQ(options.jobs.history_bytes_max, 7);
  EXPECT_EQ(options.datasets.bytes_max, int64_t{1} << 40);
  EXPECT_EQ(options.jobs.grace_period, absl::Seconds(90));
  EXPECT_EQ(options.log_format, LogFormat::kJson);
  EXPECT_EQ(options.log_level, LogLevel::kError);
  EXPECT_EQ(options.port_file, "p");
}

TEST(CommandLineTest, FlagWinsOverEnvironmentWinsOverDefault) {
  const Environment environment = {{"GRADWATCH_RUNNING_JOBS", "5"},
                                   {"GRADWATCH_QUEUED_JOBS", "6"},
                                   {"GRADWATCH_INSECURE_LISTEN", "true"},
                                   {"GRADWATCH_LOG_LEVEL", ""}};

  const CommandLine line = Parse({"--running-jobs=7"}, environment);

  ASSERT_FALSE(line.exit_code.has_value()) << line.output;
  EXPECT_EQ(line.options.jobs.running_max, 7);
  EXPECT_EQ(line.options.jobs.queued_max, 6);
  EXPECT_TRUE(line.options.rpc.insecure_listen);
  EXPECT_EQ(line.options.log_level, LogLevel::kInfo);
}

TEST(CommandLineTest, BadEnvironmentNamesTheVariableAndWhatIsAllowed) {
  const CommandLine line = Parse({}, {{"GRADWATCH_JOB_MEMORY", "lots"}});

  EXPECT_EQ(line.exit_code, 2);
  EXPECT_THAT(line.output,
              AllOf(HasSubstr("GRADWATCH_JOB_MEMORY"), HasSubstr("'lots'"), HasSubstr("64MiB")));
}

TEST(CommandLineTest, BadFlagsAreUsageErrors) {
  for (const char* flag :
       {"--cores=-1", "--running-jobs=-1", "--running-jobs=x", "--queued-jobs=1.5",
        "--job-memory=0", "--job-memory=9000000T", "--grace-period=5", "--grace-period=-1s",
        "--log-format=xml", "--log-level=loud", "--listen=nowhere", "--http-listen=1:2:3",
        "--insecure-listen=maybe", "--no-such-flag", "stray"}) {
    const CommandLine line = Parse({flag});
    EXPECT_EQ(line.exit_code, 2) << flag;
    EXPECT_THAT(line.output, AllOf(HasSubstr("gradwatchd: "), HasSubstr("--help"))) << flag;
  }
}

TEST(CommandLineTest, HelpShowsEveryFlagAndExamples) {
  const CommandLine line = Parse({"--help"});

  EXPECT_EQ(line.exit_code, 0);
  for (const char* text : {"--listen", "--http-listen", "--insecure-listen", "--tls-client-ca",
                           "--port-file", "--version", "Examples:", "GRADWATCH_", "Exit codes:"}) {
    EXPECT_THAT(line.output, HasSubstr(text));
  }
}

TEST(CommandLineTest, VersionShowsCommitEngineAndCpu) {
  const CommandLine line = Parse({"--version"});

  EXPECT_EQ(line.exit_code, 0);
  EXPECT_THAT(line.output, AllOf(HasSubstr("gradwatchd "), HasSubstr("\ncommit "),
                                 HasSubstr("\nengine "), HasSubstr("\ncpu ")));
}

TEST(ParseBytesTest, ReadsUnitsAsPowersOf1024) {
  EXPECT_EQ(*ParseBytes("1000000"), 1000000);
  EXPECT_EQ(*ParseBytes("64MiB"), int64_t{64} << 20);
  EXPECT_EQ(*ParseBytes("4G"), int64_t{4} << 30);
  EXPECT_EQ(*ParseBytes("2kb"), 2048);
  for (const char* text : {"", "MiB", "-1", "0", "1.5G", "1 G", "9223372036854775807K"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text;
  }
}

}  // namespace
}  // namespace gradwatch
