#ifndef GRADWATCH_CLIENT_CLI_HTML_REPORT_H_
#define GRADWATCH_CLIENT_CLI_HTML_REPORT_H_

#include <string>

#include "client/cli/run_facts.h"

namespace gradwatch::cli {

// The report of one run as one HTML page that needs nothing else: no network, no script. Text from
// the job is escaped. Pure: the same facts give the same bytes.
std::string HtmlReport(const RunFacts& facts);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_HTML_REPORT_H_
