#include "client/cli/batch.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/text.h"

// batch.
namespace gradwatch::cli {
namespace {

// What is shown of a long sequence, and of a long text.
constexpr int kStepsHead = 6, kStepsTail = 4, kStepsWhole = 12;
constexpr size_t kTextHead = 120, kTextTail = 60, kTextWhole = 200;
constexpr size_t kColumnsMax = 8;

std::string Ellipsis(const BatchStyle& style) { return style.unicode ? "…" : "..."; }

// Characters of UTF-8 text, each as it is shown between quotation marks.
std::vector<std::string> ShownCharacters(const std::string& text) {
  std::vector<std::string> shown;
  for (const char byte : text) {
    const auto code = static_cast<unsigned char>(byte);
    if ((code & 0xC0) == 0x80 && !shown.empty()) {
      shown.back() += byte;
    } else if (byte == '\n') {
      shown.emplace_back("\\n");
    } else if (byte == '\t') {
      shown.emplace_back("\\t");
    } else if (byte == '"' || byte == '\\') {
      shown.push_back({'\\', byte});
    } else if (code < 0x20 || code == 0x7F) {
      shown.push_back(absl::StrFormat("\\x%02x", code));
    } else {
      shown.emplace_back(1, byte);
    }
  }
  return shown;
}

// In quotation marks; the middle of a long text is left out.
std::string QuotedText(const std::string& text, const BatchStyle& style) {
  const std::vector<std::string> all = ShownCharacters(text);
  if (style.full || all.size() <= kTextWhole) {
    return absl::StrCat("\"", absl::StrJoin(all, ""), "\"");
  }
  return absl::StrCat("\"", absl::StrJoin(all.begin(), all.begin() + kTextHead, ""), "\" ",
                      Ellipsis(style), " ", all.size() - kTextHead - kTextTail,
                      " characters left out ", Ellipsis(style), " \"",
                      absl::StrJoin(all.end() - kTextTail, all.end(), ""), "\"");
}

// "example 1824", "characters 120 to 169 of the text, from 0".
std::string OriginText(const v1::TrainingExample& example, const v1::Task& task) {
  const int64_t last = example.origin() + example.time_steps() - 1;
  if (task.has_language()) {
    return absl::StrCat("characters ", example.origin(), " to ", last, " of the text, from 0");
  }
  if (task.has_forecast()) {
    return absl::StrCat("rows ", example.origin() + 1, " to ", last + 1, " of the table, from 1");
  }
  return absl::StrCat("example ", example.origin());
}

// What the symbols and classes of a task are called, by number, as server/data makes them; empty
// where they are numbers to everyone.
struct Names {
  std::vector<std::string> symbols;
  std::vector<std::string> classes;
  std::string legend;
};

Names NamesOf(const v1::Task& task) {
  if (task.has_copy_memory()) {
    const std::vector<std::string> letters = {"_", "a", "b", "c", "d", "e", "f", "g", "h", "now"};
    return {letters, letters,
            "symbols: a to h are to be remembered and said after 'now'; _ is the blank"};
  }
  if (task.has_temporal_order()) {
    return {{"A", "B", "c", "d", "e", "f"},
            {"AA", "AB", "BA", "BB"},
            "symbols: A and B matter, c to f do not; the class is the two that came, in order"};
  }
  return {};
}

// The name of a number; the number itself where it has none.
std::string NameOf(double number, const std::vector<std::string>& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (number == static_cast<double>(i)) return names[i];
  }
  return FormatNumber(number);
}

// One column of an example's table.
struct Column {
  std::string title;
  std::function<std::string(int t)> cell;
};

// Of numbers that stand time step by time step, `width` for each. `symbols` are their names, or
// null.
template <typename Numbers>
void AddColumns(const Numbers& numbers, int width,
                const google::protobuf::RepeatedPtrField<std::string>& names,
                absl::string_view prefix, const std::vector<std::string>* symbols,
                std::vector<Column>* columns) {
  for (int i = 0; i < width; ++i) {
    const std::string name = i < names.size() ? names.Get(i) : absl::StrCat(i);
    columns->push_back({absl::StrCat(prefix, name), [&numbers, symbols, width, i](int t) {
                          const double number = numbers.Get(t * width + i);
                          return symbols != nullptr ? NameOf(number, *symbols)
                                                    : FormatNumber(number);
                        }});
  }
}

// Whether there is a target at each time step.
bool TargetsOverTime(const v1::TrainingBatch& batch, const v1::TrainingExample& example) {
  return example.target_classes_size() > 1 ||
         example.target_values_size() > batch.target_names_size();
}

// The columns refer to `example` and `names`.
std::vector<Column> ColumnsOf(const v1::TrainingBatch& batch, const v1::TrainingExample& example,
                              const Names& names) {
  std::vector<Column> columns;
  const int steps = std::max(1, example.time_steps());
  AddColumns(example.inputs(), example.inputs_size() / steps, batch.feature_names(), "",
             &names.symbols, &columns);
  if (TargetsOverTime(batch, example)) {
    AddColumns(example.target_values(), example.target_values_size() / steps, batch.target_names(),
               "-> ", nullptr, &columns);
    if (!example.target_classes().empty()) {
      columns.push_back({"-> class", [&example, &names](int t) {
                           return NameOf(example.target_classes(t), names.classes);
                         }});
    }
  }
  if (!example.weights().empty()) {
    columns.push_back({"counts", [&example](int t) { return FormatNumber(example.weights(t)); }});
  }
  return columns;
}

// The numbers of an example, a line for each time step.
std::string NumbersText(const v1::TrainingBatch& batch, const v1::TrainingExample& example,
                        const Names& names, const BatchStyle& style) {
  std::vector<Column> columns = ColumnsOf(batch, example, names);
  std::vector<std::string> left_out;
  if (!style.full && columns.size() > kColumnsMax) {
    left_out.push_back(absl::StrCat(columns.size() - kColumnsMax, " columns"));
    columns.resize(kColumnsMax);
  }
  std::vector<Table::Column> titles = {{"t", Align::kRight}};
  for (const Column& column : columns) titles.push_back({column.title, Align::kRight});
  Table table(std::move(titles));
  for (int t = 0; t < example.time_steps(); ++t) {
    if (!style.full && t == kStepsHead && example.time_steps() > kStepsWhole) {
      table.AddRow(std::vector<std::string>(columns.size() + 1, Ellipsis(style)));
      const int next = example.time_steps() - kStepsTail;
      left_out.push_back(absl::StrCat(next - t, " time steps"));
      t = next;
    }
    std::vector<std::string> cells = {absl::StrCat(t)};
    for (const Column& column : columns) cells.push_back(column.cell(t));
    table.AddRow(std::move(cells));
  }
  std::string text = table.ToString();
  if (!left_out.empty()) {
    absl::StrAppend(&text, absl::StrJoin(left_out, " and "), " left out; --full shows all\n");
  }
  return text;
}

// Of an example with one target, at its last time step.
std::string LastTargetText(const v1::TrainingBatch& batch, const v1::TrainingExample& example,
                           const Names& names) {
  std::string text = "target";
  if (!example.target_classes().empty()) {
    absl::StrAppend(&text, " class ", NameOf(example.target_classes(0), names.classes));
  }
  for (int i = 0; i < example.target_values_size(); ++i) {
    absl::StrAppend(&text, i > 0 ? "," : "", " ", batch.target_names(i), " ",
                    FormatNumber(example.target_values(i)));
  }
  return absl::StrCat(text, "\n");
}

std::string ExampleText(const v1::TrainingBatch& batch, const v1::TrainingExample& example,
                        const Names& names, const BatchStyle& style) {
  if (!example.text().empty()) {
    return absl::StrCat("reads  ", QuotedText(example.text(), style), "\nto say ",
                        QuotedText(example.target_text(), style), "\n");
  }
  std::string text = NumbersText(batch, example, names, style);
  if (!TargetsOverTime(batch, example)) text += LastTargetText(batch, example, names);
  return text;
}

}  // namespace

std::string DescribeBatch(const v1::TrainingBatch& batch, const v1::Job& job,
                          const BatchStyle& style) {
  std::string text = absl::StrCat(job.name(), " step ", batch.step(), ": ", batch.examples_size(),
                                  " of the ", batch.rows(), " rows of its batch");
  if (batch.spoilt()) text += ", spoilt on purpose (fault_injection)";
  text += "\n";
  if (job.task().has_forecast() || job.task().has_mackey_glass()) {
    text += "numbers are standardised: (value - mean) / deviation of the training part\n";
  }
  const Names names = NamesOf(job.task());
  if (!names.legend.empty()) absl::StrAppend(&text, names.legend, "\n");
  for (int row = 0; row < batch.examples_size(); ++row) {
    const v1::TrainingExample& example = batch.examples(row);
    absl::StrAppend(&text, "\nrow ", row, ": ", OriginText(example, job.task()), ", ",
                    example.time_steps(), " time steps\n",
                    ExampleText(batch, example, names, style));
  }
  return text;
}

Flag ExamplesFlag(int64_t* examples) {
  return {.names = "--examples",
          .value = "N",
          .help = "How many, from the first row on; at most 1000.",
          .default_text = absl::StrCat(kExamplesDefault),
          .field = "examples_max",
          .set = Into(examples)};
}

absl::Status CheckExamples(int64_t examples) {
  if (examples >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--examples ", examples, " shows nothing; allowed: 1 to 1000"));
}

absl::Status PrintBatch(const std::string& job, int64_t step, int64_t examples, bool full,
                        client::Client* client, Session* session) {
  v1::GetBatchRequest request;
  request.set_name(job);
  request.set_step(step);
  request.set_examples_max(
      static_cast<int32_t>(std::min<int64_t>(examples, std::numeric_limits<int32_t>::max())));
  const absl::StatusOr<v1::TrainingBatch> batch = client->GetBatch(request);
  if (!batch.ok()) return batch.status();
  if (session->json()) {
    session->PrintJson(*batch);
    return absl::OkStatus();
  }
  v1::GetJobRequest get;
  get.set_name(job);
  const absl::StatusOr<v1::Job> described = client->GetJob(get);
  if (!described.ok()) return described.status();
  session->out() << DescribeBatch(*batch, *described,
                                  {.full = full, .unicode = session->environment().unicode});
  return absl::OkStatus();
}

Command BatchCommand() {
  struct BatchFlags {
    std::string job;
    int64_t step = 0;
    int64_t examples = kExamplesDefault;
    bool full = false;
  };
  const auto flags = std::make_shared<BatchFlags>();
  Command command{
      .name = "batch",
      .purpose = "Show the examples that a step was trained on.",
      .description =
          "The batch is made again from what the step recorded: every number is the one that the "
          "network saw, also where a roll back left batches out or a drill spoilt them. Symbols of "
          "copy memory and temporal order have names here, in -o json they are numbers.",
      .examples = {"batch my-job 57", "batch my-job 57 --examples 1 --full",
                   "batch my-job 57 -o json"},
      .flags = {JobArgument(&flags->job),
                {.names = "STEP",
                 .value = "STEP",
                 .help = "The step, as in gradwatch watch or an alert.",
                 .field = "step",
                 .set = Into(&flags->step)},
                ExamplesFlag(&flags->examples),
                {.names = "--full",
                 .help = "All time steps and columns of each.",
                 .set = Into(&flags->full)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::Status checked = CheckExamples(flags->examples);
    if (!checked.ok()) return checked;
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    const absl::Status status = PrintBatch(JobName(flags->job), flags->step, flags->examples,
                                           flags->full, *client, session);
    if (!status.ok()) return status;
    return kOk;
  };
  return command;
}

}  // namespace gradwatch::cli
