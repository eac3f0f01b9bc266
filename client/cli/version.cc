#include "client/cli/version.h"

#include "absl/strings/str_cat.h"

namespace gradwatch::cli {

std::string Version() { return GRADWATCH_VERSION; }

std::string VersionLine() {
  return absl::StrCat("gradwatch ", GRADWATCH_VERSION, " (commit ", GRADWATCH_REVISION, ")\n");
}

}  // namespace gradwatch::cli
