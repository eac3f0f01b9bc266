#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/nn/engine_level.h"
#include "tests/bench/commands.h"

namespace gradwatch::bench {

// The products are hidden in the engine, so a program of its own has them linked in, one for each
// level; its path is built in, since this program may run under a loader.
int RunGemm(absl::Span<const std::string> args) {
  const std::string program =
      absl::StrCat(GRADWATCH_BENCH_FOLDER "/gradwatch_bench_gemm-", nn::EngineLevel());
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
