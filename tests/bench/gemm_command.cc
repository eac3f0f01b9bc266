#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/commands.h"
#include "tests/bench/engine.h"

namespace gradwatch::bench {

namespace {

// Also under the loader, where the program is not the process's own file.
std::filesystem::path ProgramFolder() { return GRADWATCH_BENCH_FOLDER; }

}  // namespace

// The products are hidden in the engine, so a program of its own has them linked in, one for each
// level; it lies beside this one.
int RunGemm(absl::Span<const std::string> args) {
  const std::filesystem::path folder = ProgramFolder();
  const std::string program = folder / absl::StrCat("gradwatch_bench_gemm-", EngineLevel());
  std::vector<std::string> words = {program};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  std::fprintf(stderr, "gradwatch_bench gemm: cannot run %s: %s\n", program.c_str(),
               std::strerror(errno));
  return 1;
}

}  // namespace gradwatch::bench
