#ifndef GRADWATCH_CLIENT_CLI_MARKDOWN_REPORT_H_
#define GRADWATCH_CLIENT_CLI_MARKDOWN_REPORT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "client/cli/run_facts.h"

namespace gradwatch::cli {

// Text inside a Markdown table or paragraph: nothing in it is markup, line feeds become blanks.
std::string EscapeMarkdown(absl::string_view text);

// The same facts as HtmlReport as CommonMark with tables; pictures become lines of block
// characters and tables. Pure: the same facts give the same bytes.
std::string MarkdownReport(const RunFacts& facts);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_MARKDOWN_REPORT_H_
