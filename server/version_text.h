#ifndef GRADWATCH_SERVER_VERSION_TEXT_H_
#define GRADWATCH_SERVER_VERSION_TEXT_H_

#include <string>

#include "absl/status/status.h"

namespace gradwatch {

// What --version prints: release, commit, the instruction set that the engine
// was built for, CPU.
std::string VersionText();

// FAILED_PRECONDITION when this CPU lacks the engine's instruction set.
absl::Status CheckCpu();

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_VERSION_TEXT_H_
