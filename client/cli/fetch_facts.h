#ifndef GRADWATCH_CLIENT_CLI_FETCH_FACTS_H_
#define GRADWATCH_CLIENT_CLI_FETCH_FACTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cli/run_facts.h"
#include "client/cpp/client.h"

namespace gradwatch::cli {

// Asks the server for everything that a report of the job "jobs/x" tells; reads each recorded step
// once. Errors are the server's. `facts.server_address` and `facts.now` are left to the caller.
absl::StatusOr<RunFacts> FetchRunFacts(client::Client* client, const std::string& name);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_FETCH_FACTS_H_
