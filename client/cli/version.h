#ifndef GRADWATCH_CLIENT_CLI_VERSION_H_
#define GRADWATCH_CLIENT_CLI_VERSION_H_

#include <string>

namespace gradwatch::cli {

// "0.1.0".
std::string Version();

// "gradwatch 0.1.0 (commit 0123456789ab)", with a line feed.
std::string VersionLine();

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_VERSION_H_
