// The process around the command line: arguments, environment, terminal, Ctrl-C.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "client/cli/app.h"
#include "client/cpp/cancellation.h"

extern char** environ;

namespace {

int g_signal_pipe = -1;

// Only hands the signal on: a thread does the rest. A second signal ends the process.
void OnSignal(int number) {
  signal(number, SIG_DFL);
  const char byte = 's';
  [[maybe_unused]] const ssize_t written = write(g_signal_pipe, &byte, 1);
}

// Turns SIGINT and SIGTERM into a cancellation while it lives.
class SignalWatch {
 public:
  explicit SignalWatch(std::shared_ptr<gradwatch::client::Cancellation> cancellation) {
    if (pipe2(ends_, O_CLOEXEC) != 0) return;
    g_signal_pipe = ends_[1];
    thread_ = std::thread([this, cancellation = std::move(cancellation)] {
      char byte = 0;
      if (read(ends_[0], &byte, 1) == 1 && byte == 's') cancellation->Cancel();
    });
    signal(SIGINT, &OnSignal);
    signal(SIGTERM, &OnSignal);
  }
  ~SignalWatch() {
    if (!thread_.joinable()) return;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    const char byte = 'q';
    [[maybe_unused]] const ssize_t written = write(ends_[1], &byte, 1);
    thread_.join();
    close(ends_[0]);
    close(ends_[1]);
  }

 private:
  int ends_[2] = {-1, -1};
  std::thread thread_;
};

std::map<std::string, std::string> Variables() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) variables[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return variables;
}

// As the C library chooses the character type: the first of these that is set.
bool ShowsUnicode(const std::map<std::string, std::string>& variables) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const auto found = variables.find(name);
    if (found == variables.end() || found->second.empty()) continue;
    return absl::StrContains(found->second, "UTF-8") || absl::StrContains(found->second, "utf8");
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  gradwatch::cli::Environment environment;
  environment.out = &std::cout;
  environment.err = &std::cerr;
  environment.variables = Variables();
  environment.out_is_terminal = isatty(STDOUT_FILENO) != 0;
  environment.err_is_terminal = isatty(STDERR_FILENO) != 0;
  environment.unicode = ShowsUnicode(environment.variables);
  if (winsize size{}; ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    environment.columns = size.ws_col;
  }
  environment.interrupt = std::make_shared<gradwatch::client::Cancellation>();
  const SignalWatch signals(environment.interrupt);
  return gradwatch::cli::Run(std::vector<std::string>(argv + 1, argv + argc), environment);
}
