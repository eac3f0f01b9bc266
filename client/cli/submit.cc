// submit and check: commands that describe a job.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/job_flags.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

constexpr char kSending[] = "Sending";

struct SubmitFlags {
  JobFlags job;
  std::string id;
  std::string request_id;
  bool validate_only = false;
  bool wait = false;
  bool watch = false;
  bool reconnect = false;
};

std::vector<Flag> SendingFlags(SubmitFlags* flags) {
  return {{.names = "--id",
           .value = "ID",
           .help = "The job's id: a small letter, then letters, digits and '-', at most 63.",
           .default_text = "made by the server",
           .field = "job_id",
           .group = kSending,
           .set = Into(&flags->id)},
          {.names = "--request-id",
           .value = "TEXT",
           .help = "Sending the same job with the same request id again gives the first job "
                   "instead of a second.",
           .default_text = "a random one",
           .field = "request_id",
           .group = kSending,
           .set = Into(&flags->request_id)},
          {.names = "--validate-only",
           .help = "Check everything and show the job as it would be; create nothing (data is "
                   "uploaded all the same).",
           .group = kSending,
           .set = Into(&flags->validate_only)},
          {.names = "--wait",
           .help = "Wait until the job is final; the exit code tells how it ended.",
           .group = kSending,
           .set = Into(&flags->wait)},
          {.names = "--watch",
           .help = "Watch it until it is final, as gradwatch watch does.",
           .group = kSending,
           .set = Into(&flags->watch)},
          {.names = "--reconnect",
           .help = "With --wait and --watch: wait for a server that goes away.",
           .group = kSending,
           .set = Into(&flags->reconnect)}};
}

absl::StatusOr<int> Submit(const SubmitFlags& flags, Session* session) {
  const bool waits = flags.wait || flags.watch;
  const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(10), waits);
  if (!client.ok()) return client.status();
  absl::StatusOr<v1::Job> wanted = BuildJobAndUpload(flags.job, session);
  if (!wanted.ok()) return wanted.status();
  v1::CreateJobRequest request;
  *request.mutable_job() = *std::move(wanted);
  request.set_job_id(flags.id);
  request.set_request_id(flags.request_id);
  request.set_validate_only(flags.validate_only);
  const absl::StatusOr<v1::Job> job = (*client)->CreateJob(request);
  if (!job.ok()) return job.status();
  if (flags.validate_only) {
    if (session->json()) {
      session->PrintJson(*job);
    } else {
      session->out() << DescribeSettings(*job);
      session->Note(absl::StrCat("the job is good; it would hold ",
                                 FormatBytes(job->memory_bytes()), "; nothing was created"));
    }
    return kOk;
  }
  if (session->json() && !waits) {
    session->PrintJson(*job);
  } else if (!session->json()) {
    session->out() << job->name() << std::endl;
  }
  session->Note(absl::StrCat(
      StateName(job->state()), ", seed ", job->seed(),
      waits ? "" : absl::StrCat("; gradwatch watch ", IdOf(job->name()), " shows how it goes")));
  if (flags.watch) {
    return WatchJob(session, {.job = job->name(), .from_step = {}, .reconnect = flags.reconnect});
  }
  return flags.wait ? WaitForJob(session, job->name(), flags.reconnect) : kOk;
}

struct CheckFlags {
  JobFlags job;
  int64_t entries = 20;
  double difference = 1e-5;
};

absl::StatusOr<int> Check(const CheckFlags& flags, Session* session) {
  // Two passes through the network for each entry.
  const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(120));
  if (!client.ok()) return client.status();
  absl::StatusOr<v1::Job> wanted = BuildJobAndUpload(flags.job, session);
  if (!wanted.ok()) return wanted.status();
  v1::CheckGradientsRequest request;
  *request.mutable_job() = *std::move(wanted);
  request.set_entries_per_tensor(static_cast<int32_t>(flags.entries));
  request.set_difference(flags.difference);
  const absl::StatusOr<v1::CheckGradientsResponse> response = (*client)->CheckGradients(request);
  if (!response.ok()) return response.status();
  if (session->json()) {
    session->PrintJson(*response);
    return response->passed() ? kOk : kFailed;
  }
  Table table({{"TENSOR"},
               {"ENTRIES", Align::kRight},
               {"LARGEST ERROR", Align::kRight},
               {"RELATIVE", Align::kRight},
               {"RESULT"}});
  for (const auto& tensor : response->tensors()) {
    table.AddRow({tensor.name(), absl::StrCat(tensor.entries()),
                  FormatNumber(tensor.absolute_error()), FormatNumber(tensor.relative_error()),
                  tensor.passed() ? session->Paint(Color::kGreen, "agrees")
                                  : session->Paint(Color::kRed, "DIFFERS")});
  }
  session->out() << table.ToString();
  session->Note(absl::StrCat(
      response->entries(), " entries of the gradient compared with central differences: ",
      response->passed() ? "all agree"
                         : "some differ; the network's backward pass is wrong there"));
  return response->passed() ? kOk : kFailed;
}

}  // namespace

Command SubmitCommand() {
  const auto flags = std::make_shared<SubmitFlags>();
  Command command{
      .name = "submit",
      .purpose = "Create a training job.",
      .description =
          "The job's name is printed on standard output, everything else on standard error. With "
          "-o json the job is printed: as created, with --wait as it ended, with --watch the "
          "messages of its stream, one a line.",
      .examples = {"submit --watch",
                   "submit --task temporal-order --cell rnn-tanh --hidden 50 --init-recurrent "
                   "orthogonal:1.1 --optimizer sgd --lr 0.1 --clip 0.5",
                   "submit --text book.txt --hidden 256 --steps 5000 --clip 5 --name book --wait",
                   "submit --csv weather.csv --target temperature --cell gru --id weather",
                   "submit --file job.yaml --clip none --label run=unclipped"},
      .flags = FlagsOf(&flags->job)};
  for (Flag& flag : SendingFlags(flags.get())) command.flags.push_back(std::move(flag));
  command.run = [flags](Session* session) { return Submit(*flags, session); };
  return command;
}

Command CheckCommand() {
  const auto flags = std::make_shared<CheckFlags>();
  Command command{
      .name = "check",
      .purpose = "Compare a job's gradient with central differences on its own first batch.",
      .description =
          "Takes the same description of a job as submit; nothing is created. Exit code "
          "1 when a tensor differs.",
      .examples = {"check --task adding --cell gru --hidden 16",
                   "check --file job.yaml --entries 100"},
      .flags = FlagsOf(&flags->job)};
  command.flags.push_back({.names = "--entries",
                           .value = "N",
                           .help = "Entries that are compared in each tensor, 1 to 1000.",
                           .default_text = "20",
                           .field = "entries_per_tensor",
                           .group = "Checking",
                           .set = Into(&flags->entries)});
  command.flags.push_back({.names = "--difference",
                           .value = "H",
                           .help = "Half the distance of the difference quotient, 1e-8 to 1e-2.",
                           .default_text = "1e-5",
                           .field = "difference",
                           .group = "Checking",
                           .set = Into(&flags->difference)});
  command.run = [flags](Session* session) { return Check(*flags, session); };
  return command;
}

}  // namespace gradwatch::cli
