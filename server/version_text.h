#ifndef GRADWATCH_SERVER_VERSION_TEXT_H_
#define GRADWATCH_SERVER_VERSION_TEXT_H_

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradwatch {

// What --version prints: release, commit, the CPU level of the engine that the
// loader chose, CPU.
std::string VersionText();

// FAILED_PRECONDITION, with what is missing, when this CPU lacks the lowest
// level that the engine was built for. The loader sees to the others.
absl::Status CheckCpu();

// The same for `level` (x86-64-v2, -v3, -v4; others need nothing) and a CPU with
// `features`, named as in the psABI that defines the levels.
absl::Status CheckLevel(absl::string_view level,
                        const absl::flat_hash_set<absl::string_view>& features);

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_VERSION_TEXT_H_
