// report, compare, export, download, generate: what came of jobs.
#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/compare.h"
#include "client/cli/csv.h"
#include "client/cli/exit_code.h"
#include "client/cli/fetch_facts.h"
#include "client/cli/html_report.h"
#include "client/cli/markdown_report.h"
#include "client/cli/output_file.h"
#include "client/cli/text.h"
#include "google/protobuf/util/json_util.h"

namespace gradwatch::cli {
namespace {

absl::StatusOr<v1::Job> FetchJob(client::Client* client, const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(name);
  return client->GetJob(request);
}

absl::StatusOr<v1::QueryStatsResponse> FetchHistory(client::Client* client, const std::string& name,
                                                    int points) {
  v1::QueryStatsRequest request;
  request.set_name(name);
  request.set_points(points);
  return client->QueryStats(request);
}

absl::StatusOr<int> Compare(const std::vector<std::string>& jobs, Session* session) {
  const absl::StatusOr<client::Client*> client = session->Connect();
  if (!client.ok()) return client.status();
  std::vector<JobSummary> summaries;
  for (const std::string& job : jobs) {
    absl::StatusOr<JobSummary> summary = Summarise(*client, JobName(job));
    if (!summary.ok()) return summary.status();
    summaries.push_back(*std::move(summary));
  }
  if (session->json()) {
    session->PrintJson(ComparisonJson(summaries));
    return kOk;
  }
  session->out() << ComparisonTable(summaries).ToString();
  const auto width = static_cast<size_t>(std::max(session->environment().columns, 60));
  session->out() << "\n";
  if (const Table shadows = ShadowTable(summaries); !shadows.empty()) {
    session->out() << shadows.ToString() << "\n";
  }
  if (const std::string differences = Differences(summaries); !differences.empty()) {
    session->out() << differences << "\n";
  }
  for (const JobSummary& summary : summaries) {
    session->out() << session->Paint(Color::kBold, absl::StrCat(IdOf(summary.job.name()), ":"))
                   << " " << Wrap(Verdict(summary), width - IdOf(summary.job.name()).size() - 2, 2)
                   << "\n";
  }
  return kOk;
}

// --- export ---

struct ExportFlags {
  std::string job;
  std::string format = "csv";
  std::string output;
  std::optional<int64_t> from_step;
};

// Where an export goes: a file that appears when it is complete, or the results' stream.
class Sink {
 public:
  static absl::StatusOr<std::unique_ptr<Sink>> Open(const std::string& path, Session* session) {
    auto sink = std::unique_ptr<Sink>(new Sink(session));
    if (path.empty() || path == "-") return sink;
    absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path);
    if (!file.ok()) return file.status();
    sink->file_ = *std::move(file);
    return sink;
  }

  absl::Status Write(const std::string& text) {
    if (file_ != nullptr) return file_->Write(text);
    if (session_->out() << text) return absl::OkStatus();
    return absl::UnknownError("cannot write to standard output");
  }

  absl::Status Commit() { return file_ != nullptr ? file_->Commit() : absl::OkStatus(); }

 private:
  explicit Sink(Session* session) : session_(session) {}

  Session* const session_;
  std::unique_ptr<OutputFile> file_;
};

std::string JsonLine(const v1::StepStats& step) {
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  // The same keys in every line.
  print.always_print_primitive_fields = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(step, &text, print).ok()) text = "{}";
  text += '\n';
  return text;
}

absl::StatusOr<int> Export(const ExportFlags& flags, Session* session) {
  const absl::StatusOr<client::Client*> client = session->Connect();
  if (!client.ok()) return client.status();
  const std::string name = JobName(flags.job);
  const absl::StatusOr<v1::Job> job = FetchJob(*client, name);
  if (!job.ok()) return job.status();
  v1::StreamStatsRequest request;
  request.set_name(name);
  request.set_lossless(true);
  request.set_history_only(true);
  if (flags.from_step) {
    request.set_from_step(*flags.from_step);
  } else {
    const absl::StatusOr<v1::QueryStatsResponse> history = FetchHistory(*client, name, 1);
    if (!history.ok()) return history.status();
    request.set_from_step(std::max<int64_t>(history->oldest_step(), 0));
    if (history->oldest_step() > 0) {
      session->Note(absl::StrCat("steps before ", history->oldest_step(),
                                 " are no longer kept on the server"));
    }
  }
  absl::StatusOr<std::unique_ptr<Sink>> sink = Sink::Open(flags.output, session);
  if (!sink.ok()) return sink.status();
  const bool csv = flags.format == "csv";
  absl::Status status = csv ? (*sink)->Write(CsvHeader(*job)) : absl::OkStatus();
  const auto reader = (*client)->StreamStats(request, {});
  v1::StreamStatsResponse message;
  int64_t steps = 0;
  while (status.ok() && reader->Next(&message)) {
    for (const v1::StepStats& step : message.steps()) {
      if (status.ok()) {
        status = (*sink)->Write(csv ? CsvRow(step, *job) : JsonLine(step));
      }
      ++steps;
    }
  }
  if (status.ok()) status = reader->Finish();
  if (status.ok()) status = (*sink)->Commit();
  if (!status.ok()) return status;
  if (!flags.output.empty()) {
    session->Note(absl::StrCat("wrote ", steps, " steps to ", flags.output));
  }
  return kOk;
}

// --- report ---

struct ReportFlags {
  std::string job;
  std::string output;
  bool markdown = false;
};

absl::StatusOr<int> WriteReport(const ReportFlags& flags, Session* session) {
  const absl::StatusOr<client::Client*> client = session->Connect();
  if (!client.ok()) return client.status();
  const std::string name = JobName(flags.job);
  absl::StatusOr<RunFacts> facts = FetchRunFacts(*client, name);
  if (!facts.ok()) return facts.status();
  facts->server_address = session->options().client.server;
  facts->now = absl::Now();
  const std::string path = flags.output.empty()
                               ? absl::StrCat(IdOf(name), flags.markdown ? ".md" : ".html")
                               : flags.output;
  absl::StatusOr<std::unique_ptr<Sink>> sink = Sink::Open(path, session);
  if (!sink.ok()) return sink.status();
  absl::Status status =
      (*sink)->Write(flags.markdown ? MarkdownReport(*facts) : HtmlReport(*facts));
  if (status.ok()) status = (*sink)->Commit();
  if (!status.ok()) return status;
  if (path != "-") session->out() << path << "\n";
  return kOk;
}

// --- download ---

absl::StatusOr<int> Download(const std::string& job, const std::string& wanted_path,
                             Session* session) {
  const absl::StatusOr<client::Client*> client = session->Connect();
  if (!client.ok()) return client.status();
  const std::string path =
      wanted_path.empty() ? absl::StrCat(IdOf(JobName(job)), ".safetensors") : wanted_path;
  absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  v1::DownloadModelRequest request;
  request.set_name(JobName(job));
  const auto reader = (*client)->DownloadModel(request, {});
  v1::DownloadModelResponse message;
  int64_t size = -1;
  int64_t step = 0;
  int64_t written = 0;
  absl::Status status;
  while (status.ok() && reader->Next(&message)) {
    if (size < 0) {
      size = message.size_bytes();
      step = message.step();
    }
    written += static_cast<int64_t>(message.chunk().size());
    status = (*file)->Write(message.chunk());
  }
  if (status.ok()) status = reader->Finish();
  if (status.ok() && written != size) {
    status = absl::DataLossError(
        absl::StrCat("the model has ", size, " bytes but ", written, " came: try again"));
  }
  if (status.ok()) status = (*file)->Commit();
  if (!status.ok()) return status;
  session->out() << path << "\n";
  session->Note(absl::StrCat(FormatBytes(size), ", weights after ", step, " steps"));
  return kOk;
}

}  // namespace

absl::StatusOr<JobSummary> Summarise(client::Client* client, const std::string& name) {
  // Enough buckets to tell the end from the beginning.
  constexpr int kBuckets = 20;
  constexpr size_t kAlertsMax = 1000;
  absl::StatusOr<v1::Job> job = FetchJob(client, name);
  if (!job.ok()) return job.status();
  absl::StatusOr<v1::QueryStatsResponse> history = FetchHistory(client, name, kBuckets);
  if (!history.ok()) return history.status();
  absl::StatusOr<std::vector<v1::Alert>> alerts = AllAlerts(client, name, kAlertsMax);
  if (!alerts.ok()) return alerts.status();
  return JobSummary{*std::move(job), *std::move(history), *std::move(alerts)};
}

Command CompareCommand() {
  const auto jobs = std::make_shared<std::vector<std::string>>();
  Command command{.name = "compare",
                  .purpose = "Put jobs beside each other and say what became of each.",
                  .description =
                      "LOSS is that of the newest evaluation on held-out examples, RIGHT its share "
                      "of right answers, LARGEST NORM the largest finite gradient norm before "
                      "clipping, GROWTH the mean growth factor through time.",
                  .examples = {"compare clipped unclipped", "compare job-1 job-2 job-3 -o json"},
                  .flags = {{.names = "JOB",
                             .value = "JOB",
                             .help = "Ids of one or more jobs.",
                             .repeated = true,
                             .set = Into(jobs.get())}}};
  command.run = [jobs](Session* session) { return Compare(*jobs, session); };
  return command;
}

Command ReportCommand() {
  const auto flags = std::make_shared<ReportFlags>();
  Command command{
      .name = "report",
      .purpose = "Write a report of one job as a page with pictures, or as Markdown.",
      .description =
          "What ran and what became of it in plain words; loss and gradient norms with alerts and "
          "clipped steps marked; the gradient over training step and lag (for jobs with --stats "
          "full), its growth factor and horizon; clip rate and distribution of the norm; alerts "
          "with their advice; settings, build and data. The page is one file that opens without a "
          "network and prints well. Works on running jobs too. The file's path is printed on "
          "standard output. In the terminal, gradwatch watch JOB shows the course of a job.",
      .examples = {"report my-job", "report my-job --output my-job.html",
                   "report my-job --markdown --output - | less"},
      .flags = {JobArgument(&flags->job),
                {.names = "--output",
                 .value = "FILE",
                 .help = "Where to write, - for standard output; the file appears when it is "
                         "complete.",
                 .default_text = "JOB.html, with --markdown JOB.md",
                 .set = Into(&flags->output)},
                {.names = "--markdown",
                 .help = "Markdown with tables instead of a page with pictures.",
                 .set = Into(&flags->markdown)}}};
  command.run = [flags](Session* session) { return WriteReport(*flags, session); };
  return command;
}

Command ExportCommand() {
  const auto flags = std::make_shared<ExportFlags>();
  Command command{.name = "export",
                  .purpose = "Write the statistics of every recorded step as CSV or JSON lines.",
                  .description =
                      "CSV has the scalars and the norms of each parameter tensor; JSON lines have "
                      "everything, as proto JSON with the field names of the .proto files.",
                  .examples = {"export my-job --output my-job.csv",
                               "export my-job --format jsonl | jq .norm_before"},
                  .flags = {JobArgument(&flags->job),
                            {.names = "--format",
                             .value = "csv|jsonl",
                             .help = "Form of the file.",
                             .default_text = "csv",
                             .set = OneOf({"csv", "jsonl"}, &flags->format)},
                            {.names = "--output",
                             .value = "FILE",
                             .help = "Where to write; the file appears when it is complete.",
                             .default_text = "standard output",
                             .set = Into(&flags->output)},
                            {.names = "--from-step",
                             .value = "N",
                             .help = "Start with this step.",
                             .default_text = "the oldest kept",
                             .set = [flags](const std::string& text) {
                               int64_t step = 0;
                               const absl::Status status = Into(&step)(text);
                               if (status.ok()) flags->from_step = step;
                               return status;
                             }}}};
  command.run = [flags](Session* session) { return Export(*flags, session); };
  return command;
}

Command DownloadCommand() {
  struct DownloadFlags {
    std::string job;
    std::string output;
  };
  const auto flags = std::make_shared<DownloadFlags>();
  Command command{
      .name = "download",
      .purpose = "Save a job's weights as a safetensors file with PyTorch's names and shapes.",
      .description =
          "Works on running jobs too: the weights of one step. The file's path is "
          "printed on standard output; the file appears when it is complete.",
      .examples = {"download my-job", "download my-job --output model.safetensors"},
      .flags = {JobArgument(&flags->job),
                {.names = "--output",
                 .value = "FILE",
                 .help = "Where to write.",
                 .default_text = "JOB.safetensors",
                 .set = Into(&flags->output)}}};
  command.run = [flags](Session* session) { return Download(flags->job, flags->output, session); };
  return command;
}

Command GenerateCommand() {
  struct GenerateFlags {
    std::string job;
    std::string prompt;
    std::optional<int64_t> characters;
    std::optional<double> temperature;
    std::optional<int64_t> seed;
  };
  const auto flags = std::make_shared<GenerateFlags>();
  const auto optional = [](auto* target) {
    return [target](const std::string& text) {
      auto value = typename std::remove_pointer_t<decltype(target)>::value_type();
      const absl::Status status = Into(&value)(text);
      if (status.ok()) *target = value;
      return status;
    };
  };
  Command command{
      .name = "generate",
      .purpose = "Let the model of a language job write text.",
      .description = "Prints the prompt and what follows it; with -o json the answer alone.",
      .examples = {"generate book --prompt 'The ' --characters 500",
                   "generate book --temperature 0.5 --seed 3"},
      .flags = {JobArgument(&flags->job),
                {.names = "--prompt",
                 .value = "TEXT",
                 .help = "Where it starts.",
                 .default_text = "a line feed, else the training text's first character",
                 .field = "prompt",
                 .set = Into(&flags->prompt)},
                {.names = "--characters",
                 .value = "N",
                 .help = "Characters wanted, 1 to 10,000.",
                 .default_text = "200",
                 .field = "characters",
                 .set = optional(&flags->characters)},
                {.names = "--temperature",
                 .value = "X",
                 .help = "Above 0 spreads the choice, 0 always takes the likeliest character.",
                 .default_text = "0.8",
                 .field = "temperature",
                 .set = optional(&flags->temperature)},
                {.names = "--seed",
                 .value = "N",
                 .help = "The same seed and weights give the same text.",
                 .default_text = "0",
                 .field = "seed",
                 .set = optional(&flags->seed)}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(60));
    if (!client.ok()) return client.status();
    v1::GenerateRequest request;
    request.set_name(JobName(flags->job));
    request.set_prompt(flags->prompt);
    if (flags->characters) request.set_characters(static_cast<int32_t>(*flags->characters));
    if (flags->temperature) request.set_temperature(*flags->temperature);
    if (flags->seed) request.set_seed(static_cast<uint64_t>(*flags->seed));
    const absl::StatusOr<v1::GenerateResponse> response = (*client)->Generate(request);
    if (!response.ok()) return response.status();
    if (session->json()) {
      session->PrintJson(*response);
    } else {
      session->out() << session->Paint(Color::kBold, flags->prompt) << response->text() << "\n";
      session->Note(absl::StrCat("written with the weights after ", response->step(), " steps"));
    }
    return kOk;
  };
  return command;
}

}  // namespace gradwatch::cli
