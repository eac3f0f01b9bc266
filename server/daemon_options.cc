#include "server/daemon_options.h"

#include <cmath>
#include <limits>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "server/base/status.h"
#include "server/version_text.h"

namespace gradwatch {
namespace {

constexpr char kDescription[] =
    "gradwatchd hosts recurrent-network training jobs, clips their gradients "
    "and shows what the\n"
    "gradient does: over gRPC (see `gradwatch --help`) and to Prometheus.";

constexpr char kExamples[] = R"(
Every option can also be given as an environment variable, such as GRADWATCH_HTTP_LISTEN for
--http-listen; the command line wins.

Examples:
  gradwatchd
      gRPC on 127.0.0.1:7070, metrics on http://127.0.0.1:7071/metrics
  gradwatchd --listen=127.0.0.1:0 --http-listen=127.0.0.1:0 --port-file=/tmp/ports.json
      free ports, told in a file once the server is ready
  gradwatchd --listen=0.0.0.0:7070 --tls-cert=server.pem --tls-key=server.key --tls-client-ca=ca.pem
      for other machines, with certificates on both sides
  gradwatchd --running-jobs=4 --total-memory=16GiB --history-bytes=256MiB

Exit codes: 0 stopped by a signal, 1 failed (a port in use, say), 2 wrong usage.)";

using Setter = std::function<absl::Status(const std::string& text, DaemonOptions* options)>;

struct Setting {
  std::string flag;  // Without dashes; the variable is derived from it.
  std::string value_name;
  std::string help;  // With the default.
  Setter set;
};

absl::Status Refuse(absl::string_view allowed) { return absl::InvalidArgumentError(allowed); }

Setter Address(std::function<std::string*(DaemonOptions*)> field) {
  return [field](const std::string& text, DaemonOptions* options) {
    RETURN_IF_ERROR(rpc::ParseHostPort(text).status());
    *field(options) = text;
    return absl::OkStatus();
  };
}

Setter Text(std::function<std::string*(DaemonOptions*)> field) {
  return [field](const std::string& text, DaemonOptions* options) {
    *field(options) = text;
    return absl::OkStatus();
  };
}

Setter Count(int minimum, int maximum, std::function<int*(DaemonOptions*)> field) {
  return [=](const std::string& text, DaemonOptions* options) {
    int value = 0;
    if (!absl::SimpleAtoi(text, &value) || value < minimum || value > maximum) {
      return Refuse(absl::StrCat("expected a whole number from ", minimum, " to ", maximum));
    }
    *field(options) = value;
    return absl::OkStatus();
  };
}

Setter Bytes(std::function<int64_t*(DaemonOptions*)> field) {
  return [field](const std::string& text, DaemonOptions* options) {
    ASSIGN_OR_RETURN(*field(options), ParseBytes(text));
    return absl::OkStatus();
  };
}

absl::Status SetGracePeriod(const std::string& text, DaemonOptions* options) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value < absl::ZeroDuration() ||
      value > absl::Hours(24)) {
    return Refuse("expected a time from 0s to 24h, such as 90s or 5m");
  }
  options->jobs.grace_period = value;
  return absl::OkStatus();
}

absl::Status SetLogFormat(const std::string& text, DaemonOptions* options) {
  if (text != "text" && text != "json") return Refuse("expected text or json");
  options->log_format = text == "json" ? LogFormat::kJson : LogFormat::kText;
  return absl::OkStatus();
}

absl::Status SetLogLevel(const std::string& text, DaemonOptions* options) {
  const std::vector<std::pair<std::string, LogLevel>> levels = {{"debug", LogLevel::kDebug},
                                                                {"info", LogLevel::kInfo},
                                                                {"warning", LogLevel::kWarning},
                                                                {"error", LogLevel::kError},
                                                                {"off", LogLevel::kOff}};
  for (const auto& [name, level] : levels) {
    if (name != text) continue;
    options->log_level = level;
    return absl::OkStatus();
  }
  return Refuse("expected debug, info, warning, error or off");
}

absl::Status SetInsecure(const std::string& text, DaemonOptions* options) {
  if (text != "true" && text != "false" && text != "1" && text != "0") {
    return Refuse("expected true or false");
  }
  options->rpc.insecure_listen = text == "true" || text == "1";
  return absl::OkStatus();
}

constexpr char kInsecureFlag[] = "insecure-listen";

std::vector<Setting> Settings() {
  using O = DaemonOptions*;
  return {
      {"listen", "HOST:PORT", "Where gRPC is served; port 0: a free one. Default 127.0.0.1:7070.",
       Address([](O o) { return &o->rpc.listen; })},
      {"http-listen", "HOST:PORT",
       "Where metrics and health are served over HTTP; HOST is an IP address. "
       "Default "
       "127.0.0.1:7071.",
       Address([](O o) { return &o->http_listen; })},
      {"admin-listen", "HOST:PORT",
       "A second gRPC port with reflection, loopback only, for a server whose "
       "main port is not "
       "loopback. Default: none.",
       Address([](O o) { return &o->rpc.admin_listen; })},
      {kInsecureFlag, "",
       "Allow plain text without authentication on addresses that other "
       "machines can reach.",
       SetInsecure},
      {"tls-cert", "FILE", "PEM certificate chain of the server: gRPC speaks TLS only.",
       Text([](O o) { return &o->rpc.tls.certificate; })},
      {"tls-key", "FILE", "PEM key of that certificate.",
       Text([](O o) { return &o->rpc.tls.key; })},
      {"tls-client-ca", "FILE", "Clients must show a certificate that this PEM file signed.",
       Text([](O o) { return &o->rpc.tls.client_ca; })},
      {"cores", "N",
       "Cores that training shares: each running job has one thread, a large one more while there "
       "are cores left. 0: all of the machine. Default 0.",
       Count(0, 1024, [](O o) { return &o->jobs.cores; })},
      {"running-jobs", "N", "Jobs that train at once; 0: one for each core. Default 0.",
       Count(0, 10'000, [](O o) { return &o->jobs.running_max; })},
      {"queued-jobs", "N", "Jobs that may wait. Default 1000.",
       Count(0, 1'000'000, [](O o) { return &o->jobs.queued_max; })},
      {"job-memory", "BYTES", "Memory that one job may need. Default 4GiB.",
       Bytes([](O o) { return &o->jobs.job_bytes_max; })},
      {"total-memory", "BYTES", "Memory that all running and queued jobs may need. Default 8GiB.",
       Bytes([](O o) { return &o->jobs.total_bytes_max; })},
      {"history-bytes", "BYTES",
       "Statistics kept of each job; older ones are compressed. Default 64MiB.",
       Bytes([](O o) { return &o->jobs.history_bytes_max; })},
      {"dataset-bytes", "BYTES", "Size of one uploaded data set. Default 64MiB.",
       Bytes([](O o) { return &o->datasets.bytes_max; })},
      {"grace-period", "TIME", "How long an ended job stays in the metrics. Default 5m.",
       SetGracePeriod},
      {"log-format", "text|json", "Form of the log, which goes to standard error. Default text.",
       SetLogFormat},
      {"log-level", "LEVEL", "debug, info, warning, error or off. Default info.", SetLogLevel},
      {"port-file", "FILE",
       "Write the addresses as JSON to FILE, in one piece, once the server is "
       "ready.",
       Text([](O o) { return &o->port_file; })},
  };
}

std::string Variable(const std::string& flag) {
  return absl::StrCat("GRADWATCH_", absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

// "--listen" as its name in messages, or "GRADWATCH_LISTEN".
absl::Status Apply(const Setting& setting, const std::string& source, const std::string& text,
                   DaemonOptions* options) {
  const absl::Status status = setting.set(text, options);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": '", text, "' is not possible: ", status.message()));
}

CommandLine Ending(int exit_code, std::string output) {
  CommandLine line;
  line.exit_code = exit_code;
  line.output = std::move(output);
  return line;
}

CommandLine UsageError(absl::string_view message) {
  return Ending(2, absl::StrCat("gradwatchd: ", message, "\nTry: gradwatchd --help\n"));
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  const absl::Status error = absl::InvalidArgumentError(
      "expected a size in bytes from 1 up, such as 1000000, 64MiB or 4GiB");
  std::string upper = absl::AsciiStrToUpper(text);
  absl::string_view number = upper;
  if (!absl::ConsumeSuffix(&number, "IB")) absl::ConsumeSuffix(&number, "B");
  int64_t unit = 1;
  for (const absl::string_view suffix : {"K", "M", "G", "T"}) {
    unit *= 1024;
    if (absl::ConsumeSuffix(&number, suffix)) break;
    if (suffix == "T") unit = 1;
  }
  int64_t value = 0;
  if (number.empty() || !absl::ascii_isdigit(static_cast<unsigned char>(number.back())) ||
      !absl::SimpleAtoi(number, &value) || value < 1) {
    return error;
  }
  if (value > std::numeric_limits<int64_t>::max() / unit) return error;
  return value * unit;
}

CommandLine ParseCommandLine(const std::vector<std::string>& arguments,
                             const std::function<const char*(const char*)>& getenv) {
  const std::vector<Setting> settings = Settings();
  CLI::App app(kDescription, "gradwatchd");
  app.footer(kExamples);
  bool version = false;
  app.add_flag("--version", version, "Print version, commit, engine level and CPU, and end.");
  std::vector<std::string> texts(settings.size());
  std::vector<CLI::Option*> flags;
  for (size_t i = 0; i < settings.size(); ++i) {
    const std::string name = absl::StrCat("--", settings[i].flag);
    CLI::Option* const flag =
        settings[i].value_name.empty()
            ? app.add_flag(name, texts[i], settings[i].help)
            : app.add_option(name, texts[i], settings[i].help)->option_text(settings[i].value_name);
    flags.push_back(flag);
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return Ending(0, app.help());
  } catch (const CLI::ParseError& error) {
    return UsageError(error.what());
  }
  if (version) return Ending(0, VersionText());

  CommandLine line;
  for (size_t i = 0; i < settings.size(); ++i) {
    const std::string variable = Variable(settings[i].flag);
    absl::Status status;
    if (flags[i]->count() > 0) {
      status = Apply(settings[i], absl::StrCat("--", settings[i].flag), texts[i], &line.options);
    } else if (const char* value = getenv(variable.c_str()); value != nullptr && *value != '\0') {
      status = Apply(settings[i], variable, value, &line.options);
    }
    if (!status.ok()) return UsageError(status.message());
  }
  return line;
}

}  // namespace gradwatch
