// datasets upload, list, get, delete.
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/job_flags.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

struct UploadFlags {
  std::string path;
  std::string kind;
  std::string id;
  std::string name;
  bool reuse = false;
};

v1::Dataset::Kind KindOf(const UploadFlags& flags) {
  if (flags.kind == "text") return v1::Dataset::KIND_TEXT;
  if (flags.kind == "table") return v1::Dataset::KIND_TABLE;
  return absl::EndsWith(absl::AsciiStrToLower(flags.path), ".csv") ? v1::Dataset::KIND_TABLE
                                                                   : v1::Dataset::KIND_TEXT;
}

std::string DescribeDataset(const v1::Dataset& dataset) {
  std::string text = DatasetTable({dataset}, absl::Now()).ToString();
  absl::StrAppend(&text, "sha256 ", dataset.sha256(), "\n");
  if (dataset.columns().empty()) return text;
  Table columns({{"COLUMN"},
                 {"NUMERIC"},
                 {"MINIMUM", Align::kRight},
                 {"MEAN", Align::kRight},
                 {"MAXIMUM", Align::kRight},
                 {"PROBLEM"}});
  for (const v1::Dataset::Column& column : dataset.columns()) {
    const auto number = [&column](double value) {
      return column.numeric() ? FormatNumber(value) : std::string("-");
    };
    columns.AddRow({column.name(), column.numeric() ? "yes" : "no", number(column.minimum()),
                    number(column.mean()), number(column.maximum()), column.problem()});
  }
  return absl::StrCat(text, "\n", columns.ToString());
}

Command UploadCommand() {
  const auto flags = std::make_shared<UploadFlags>();
  Command command{
      .name = "upload",
      .purpose = "Send a text or a table to the server.",
      .description = "The data set's name is printed on standard output.",
      .examples = {"datasets upload book.txt --id book", "datasets upload weather.csv --reuse"},
      .flags = {{.names = "FILE",
                 .value = "FILE",
                 .help = "UTF-8 text, or CSV with a header row.",
                 .set = Into(&flags->path)},
                {.names = "--kind",
                 .value = "text|table",
                 .help = "What it is.",
                 .default_text = "table for .csv, else text",
                 .field = "kind",
                 .set = OneOf({"text", "table"}, &flags->kind)},
                {.names = "--id",
                 .value = "ID",
                 .help = "The wanted id.",
                 .default_text = "made by the server",
                 .field = "dataset_id",
                 .set = Into(&flags->id)},
                {.names = "--name",
                 .value = "TEXT",
                 .help = "A name for people.",
                 .field = "display_name",
                 .set = Into(&flags->name)},
                {.names = "--reuse",
                 .help = "If the server has the same bytes already, name that data set instead.",
                 .set = Into(&flags->reuse)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::StatusOr<client::UploadResult> result =
        (*client)->UploadFile({.path = flags->path,
                               .kind = KindOf(*flags),
                               .dataset_id = flags->id,
                               .display_name = flags->name},
                              flags->reuse);
    if (!result.ok()) return UploadError(result.status());
    if (session->json()) {
      session->PrintJson(result->dataset);
      return kOk;
    }
    session->out() << result->dataset.name() << "\n";
    session->Note(absl::StrCat(result->reused ? "found" : "uploaded", ", ",
                               FormatBytes(result->dataset.size_bytes())));
    return kOk;
  };
  return command;
}

Command ListDatasetsCommand() {
  Command command{.name = "list",
                  .purpose = "List data sets, newest first.",
                  .examples = {"datasets list", "datasets list -o json"}};
  command.run = [](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::ListDatasetsRequest request;
    request.set_page_size(1000);
    v1::ListDatasetsResponse all;
    do {
      absl::StatusOr<v1::ListDatasetsResponse> page = (*client)->ListDatasets(request);
      if (!page.ok()) return page.status();
      for (v1::Dataset& dataset : *page->mutable_datasets()) all.add_datasets()->Swap(&dataset);
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    if (session->json()) {
      session->PrintJson(all);
    } else if (all.datasets().empty()) {
      session->Note("no data sets: gradwatch datasets upload FILE makes one");
    } else {
      session->out()
          << DatasetTable({all.datasets().begin(), all.datasets().end()}, absl::Now()).ToString();
    }
    return kOk;
  };
  return command;
}

Command GetDatasetCommand() {
  const auto id = std::make_shared<std::string>();
  Command command{.name = "get",
                  .purpose = "Show one data set, a table with its columns.",
                  .examples = {"datasets get book", "datasets get weather -o json"},
                  .flags = {{.names = "DATASET",
                             .value = "ID",
                             .help = "The data set's id.",
                             .set = Into(id.get())}}};
  command.run = [id](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::GetDatasetRequest request;
    request.set_name(DatasetName(*id));
    const absl::StatusOr<v1::Dataset> dataset = (*client)->GetDataset(request);
    if (!dataset.ok()) return dataset.status();
    if (session->json()) {
      session->PrintJson(*dataset);
    } else {
      session->out() << DescribeDataset(*dataset);
    }
    return kOk;
  };
  return command;
}

Command DeleteDatasetCommand() {
  const auto ids = std::make_shared<std::vector<std::string>>();
  Command command{.name = "delete",
                  .purpose = "Delete data sets that no job uses any more.",
                  .examples = {"datasets delete book", "datasets delete book weather"},
                  .flags = {{.names = "DATASET",
                             .value = "ID",
                             .help = "Ids of one or more data sets.",
                             .repeated = true,
                             .set = Into(ids.get())}}};
  command.run = [ids](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    for (const std::string& id : *ids) {
      v1::DeleteDatasetRequest request;
      request.set_name(DatasetName(id));
      if (absl::Status status = (*client)->DeleteDataset(request); !status.ok()) return status;
      session->Note(absl::StrCat("deleted ", request.name()));
    }
    return kOk;
  };
  return command;
}

}  // namespace

Command DatasetsCommand() {
  Command command{.name = "datasets",
                  .purpose = "Upload, list, show and delete the data that jobs train on.",
                  .examples = {"datasets upload book.txt --id book", "datasets list"}};
  command.subcommands.push_back(UploadCommand());
  command.subcommands.push_back(ListDatasetsCommand());
  command.subcommands.push_back(GetDatasetCommand());
  command.subcommands.push_back(DeleteDatasetCommand());
  return command;
}

}  // namespace gradwatch::cli
