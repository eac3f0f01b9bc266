// sweep: which way to clip, by trying.
#include "client/cli/sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/job_flags.h"
#include "client/cli/report.h"

namespace gradwatch::cli {
namespace {

constexpr size_t kSeedsMax = 1000;
constexpr size_t kJobsMax = 1000;
constexpr char kDefaultClips[] = "0.25,0.5,1,5";
constexpr char kSweeping[] = "Sweeping";

absl::Status WrongSweep(absl::string_view message) { return absl::InvalidArgumentError(message); }

double LossOf(const JobSummary& run) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (run.job.state() != v1::Job::STATE_SUCCEEDED) return kInfinity;
  const double loss = FinalLoss(run);
  return std::isfinite(loss) ? loss : kInfinity;
}

bool EndedSolved(const JobSummary& run) {
  return run.job.state() == v1::Job::STATE_SUCCEEDED && IsSolved(run);
}

// --- the command ---

struct SweepFlags {
  JobFlags job;
  std::string clips = kDefaultClips;
  std::string seeds;
  std::string id;
  bool reconnect = false;
};

// What is submitted, in order.
struct Planned {
  size_t group;
  v1::CreateJobRequest request;
};

std::string RandomId() {
  std::random_device random;
  return absl::StrCat("sweep-", absl::Hex(random() & 0xFFFFFF, absl::kZeroPad6));
}

absl::StatusOr<std::vector<Planned>> Plan(const std::string& sweep,
                                          const std::vector<SweepClip>& clips,
                                          const std::string& seeds_text, const v1::Job& job) {
  std::vector<uint64_t> seeds = {job.seed()};
  if (!seeds_text.empty()) {
    absl::StatusOr<std::vector<uint64_t>> parsed = ParseSeeds(seeds_text);
    if (!parsed.ok()) return WrongSweep(absl::StrCat("--seeds ", parsed.status().message()));
    seeds = *std::move(parsed);
  }
  if (clips.size() * seeds.size() > kJobsMax) {
    return WrongSweep(absl::StrCat("a sweep has at most ", kJobsMax, " jobs, not ", clips.size(),
                                   " x ", seeds.size()));
  }
  std::vector<Planned> planned;
  for (const uint64_t seed : seeds) {
    for (size_t group = 0; group < clips.size(); ++group) {
      v1::CreateJobRequest request;
      *request.mutable_job() = job;
      request.mutable_job()->set_seed(seed);
      *request.mutable_job()->mutable_clipping() = clips[group].clipping;
      (*request.mutable_job()->mutable_labels())["sweep"] = sweep;
      request.set_job_id(SweepJobId(sweep, clips[group].name, seed));
      planned.push_back({group, std::move(request)});
    }
  }
  return planned;
}

// One sweep that runs.
class Sweep {
 public:
  Sweep(std::string id, std::vector<SweepClip> clips, std::vector<Planned> planned,
        client::Client* client, Session* session)
      : id_(std::move(id)),
        clips_(std::move(clips)),
        planned_(std::move(planned)),
        client_(client),
        session_(session) {}

  absl::StatusOr<int> Run(bool reconnect) {
    if (absl::Status status = Submit(); !status.ok()) return status;
    for (size_t i = 0; i < names_.size(); ++i) {
      const absl::Status status = Await(i, reconnect);
      if (!status.ok()) return ExplainEnd(status);
    }
    std::vector<SweepGroup> groups(clips_.size());
    for (size_t group = 0; group < groups.size(); ++group) groups[group].clip = clips_[group].name;
    for (size_t i = 0; i < names_.size(); ++i) {
      absl::StatusOr<JobSummary> summary = Summarise(client_, names_[i]);
      if (!summary.ok()) return summary.status();
      groups[planned_[i].group].runs.push_back(*std::move(summary));
    }
    Print(groups);
    return BestOf(groups).has_value() ? kOk : kFailed;
  }

 private:
  // Nothing is created unless every way to clip makes a good job.
  absl::Status Submit() {
    for (size_t i = 0; i < std::min(planned_.size(), clips_.size()); ++i) {
      v1::CreateJobRequest check = planned_[i].request;
      check.set_validate_only(true);
      if (absl::Status status = client_->CreateJob(check).status(); !status.ok()) return status;
    }
    for (const Planned& planned : planned_) {
      const absl::StatusOr<v1::Job> job = client_->CreateJob(planned.request);
      if (!job.ok()) {
        if (!names_.empty()) {
          session_->Note(absl::StrCat(names_.size(), " of ", planned_.size(),
                                      " jobs were submitted before this; they go on", HowToEnd()));
        }
        return job.status();
      }
      names_.push_back(job->name());
    }
    session_->Note(absl::StrCat("submitted ", names_.size(),
                                " jobs; gradwatch list --label sweep=", id_, " shows them"));
    return absl::OkStatus();
  }

  absl::Status Await(size_t i, bool reconnect) {
    const absl::Time deadline = deadline_;
    v1::WatchJobRequest request;
    request.set_name(names_[i]);
    const auto reader = client_->WatchJob(
        request, {.reconnect = reconnect, .deadline = deadline, .on_reconnect = {}});
    v1::WatchJobResponse message;
    v1::Job newest;
    while (reader->Next(&message)) {
      if (message.has_job()) newest = message.job();
    }
    if (absl::Status status = reader->Finish(); !status.ok()) return status;
    ended_ = i + 1;
    session_->Note(absl::StrCat(ended_, "/", names_.size(), " ", OutcomeLine(newest)));
    return absl::OkStatus();
  }

  // "; gradwatch cancel a b c ends them", of those that are not known to have ended.
  std::string HowToEnd() const {
    std::vector<std::string> ids;
    for (size_t i = ended_; i < names_.size(); ++i) ids.push_back(IdOf(names_[i]));
    return absl::StrCat("; gradwatch cancel ", absl::StrJoin(ids, " "), " ends them");
  }

  absl::StatusOr<int> ExplainEnd(const absl::Status& status) {
    const bool late = absl::IsDeadlineExceeded(status);
    if (!session_->interrupted() && !late) return status;
    *session_->environment().err << "gradwatch: "
                                 << (late ? "the time that --timeout gives is over"
                                          : "stopped waiting")
                                 << "; " << names_.size() - ended_ << " of " << names_.size()
                                 << " jobs have not ended and go on (gradwatch list --label sweep="
                                 << id_ << " shows them" << HowToEnd() << ")" << std::endl;
    return late ? kTimeout : kInterrupted;
  }

  void Print(const std::vector<SweepGroup>& groups) {
    if (session_->json()) {
      session_->PrintJson(SweepJson(id_, groups));
      return;
    }
    std::vector<JobSummary> all;
    for (const SweepGroup& group : groups) {
      all.insert(all.end(), group.runs.begin(), group.runs.end());
    }
    session_->out() << ComparisonTable(all).ToString() << "\n"
                    << SweepTable(groups).ToString() << "\n"
                    << session_->Paint(Color::kBold, SweepVerdict(groups)) << "\n";
  }

  const std::string id_;
  const std::vector<SweepClip> clips_;
  const std::vector<Planned> planned_;
  client::Client* const client_;
  Session* const session_;
  const absl::Time deadline_ = session_->options().timeout_given
                                   ? absl::Now() + session_->options().client.timeout
                                   : absl::InfiniteFuture();
  std::vector<std::string> names_;  // Of the jobs, in the order of planned_.
  size_t ended_ = 0;                // The first so many have ended.
};

absl::StatusOr<int> RunSweep(const SweepFlags& flags, Session* session) {
  absl::StatusOr<std::vector<SweepClip>> clips = ParseSweepClips(flags.clips);
  if (!clips.ok()) return WrongSweep(absl::StrCat("--clips ", clips.status().message()));
  const absl::StatusOr<client::Client*> client = session->Connect(absl::Seconds(10), true);
  if (!client.ok()) return client.status();
  const absl::StatusOr<v1::Job> job = BuildJobAndUpload(flags.job, session);
  if (!job.ok()) return job.status();
  const std::string id = flags.id.empty() ? RandomId() : flags.id;
  absl::StatusOr<std::vector<Planned>> planned = Plan(id, *clips, flags.seeds, *job);
  if (!planned.ok()) return planned.status();
  return Sweep(id, *std::move(clips), *std::move(planned), *client, session).Run(flags.reconnect);
}

}  // namespace

absl::StatusOr<std::vector<SweepClip>> ParseSweepClips(const std::string& text) {
  std::vector<SweepClip> clips;
  std::set<std::string> names;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    SweepClip& clip = clips.emplace_back();
    clip.name = std::string(part);
    if (!names.insert(clip.name).second) return WrongSweep(absl::StrCat("has '", part, "' twice"));
    if (part == "none") continue;
    absl::StatusOr<std::vector<v1::ClipPolicy>> policies = ParsePolicies(clip.name);
    if (!policies.ok()) return policies.status();
    *clip.clipping.add_policies() = policies->front();
  }
  return clips;
}

absl::StatusOr<std::vector<uint64_t>> ParseSeeds(const std::string& text) {
  std::vector<uint64_t> seeds;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> ends = absl::StrSplit(part, absl::MaxSplits('-', 1));
    uint64_t first = 0, last = 0;
    const bool good = absl::SimpleAtoi(ends.first, &first) &&
                      (ends.second.empty() ? ends.first.size() == part.size()
                                           : absl::SimpleAtoi(ends.second, &last));
    if (ends.second.empty()) last = first;
    if (!good || last < first) {
      return WrongSweep(absl::StrCat("wants seeds such as 0,1,2 or 0-4, not '", part, "'"));
    }
    if (last - first >= kSeedsMax || seeds.size() + (last - first) >= kSeedsMax) {
      return WrongSweep(absl::StrCat("wants at most ", kSeedsMax, " seeds"));
    }
    for (uint64_t i = 0; i <= last - first; ++i) seeds.push_back(first + i);
  }
  if (std::set<uint64_t>(seeds.begin(), seeds.end()).size() != seeds.size()) {
    return WrongSweep(absl::StrCat("has a seed twice in '", text, "'"));
  }
  return seeds;
}

std::string SweepJobId(const std::string& sweep, const std::string& clip, uint64_t seed) {
  std::string plain = absl::AsciiStrToLower(clip);
  for (char& c : plain) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  const std::string rest = absl::StrCat("-clip-", plain, "-seed-", seed);
  // A name that is too long is left for the server to refuse.
  return absl::StrCat(sweep, rest);
}

SweepScore ScoreOf(const SweepGroup& group) {
  SweepScore score;
  std::vector<double> losses;
  for (const JobSummary& run : group.runs) {
    score.solved += EndedSolved(run) ? 1 : 0;
    score.can_solve = score.can_solve || RightShare(run.job).has_value();
    score.failed += run.job.state() == v1::Job::STATE_SUCCEEDED ? 0 : 1;
    score.mean_clip_rate += run.job.clip_rate() / static_cast<double>(group.runs.size());
    losses.push_back(LossOf(run));
  }
  std::sort(losses.begin(), losses.end());
  // Of an even number the upper of the two in the middle: one of the losses that were seen.
  score.median_loss = losses[losses.size() / 2];
  score.worst_loss = losses.back();
  return score;
}

std::optional<size_t> BestOf(const std::vector<SweepGroup>& groups) {
  std::optional<size_t> best;
  std::pair<int, double> best_key;
  for (size_t i = 0; i < groups.size(); ++i) {
    const SweepScore score = ScoreOf(groups[i]);
    // A way whose every run is lost is no candidate; some runs of the best may be.
    const bool any = std::any_of(groups[i].runs.begin(), groups[i].runs.end(),
                                 [](const JobSummary& run) { return std::isfinite(LossOf(run)); });
    const std::pair<int, double> key(-score.solved, score.median_loss);
    if (any && (!best.has_value() || key < best_key)) {
      best = i;
      best_key = key;
    }
  }
  return best;
}

Table SweepTable(const std::vector<SweepGroup>& groups) {
  const std::optional<size_t> best = BestOf(groups);
  bool can_solve = false;
  for (const SweepGroup& group : groups) can_solve = can_solve || ScoreOf(group).can_solve;
  std::vector<Table::Column> columns = {{""}, {"CLIP"}, {"RUNS", Align::kRight}};
  if (can_solve) columns.push_back({"SOLVED", Align::kRight});
  for (const char* title : {"FAILED", "MEDIAN LOSS", "WORST LOSS", "CLIPPED"}) {
    columns.push_back({title, Align::kRight});
  }
  Table table(columns);
  for (size_t i = 0; i < groups.size(); ++i) {
    const SweepScore score = ScoreOf(groups[i]);
    std::vector<std::string> row = {best == i ? "*" : "", groups[i].clip,
                                    absl::StrCat(groups[i].runs.size())};
    if (can_solve) row.push_back(absl::StrCat(score.solved));
    row.push_back(absl::StrCat(score.failed));
    row.push_back(FormatNumber(score.median_loss));
    row.push_back(FormatNumber(score.worst_loss));
    row.push_back(FormatShare(score.mean_clip_rate));
    table.AddRow(std::move(row));
  }
  return table;
}

std::string SweepVerdict(const std::vector<SweepGroup>& groups) {
  const std::optional<size_t> best = BestOf(groups);
  if (!best.has_value()) return "No run came to an end with a finite loss.";
  const SweepScore score = ScoreOf(groups[*best]);
  std::string text = absl::StrCat("Best: clip ", groups[*best].clip);
  if (score.can_solve) {
    absl::StrAppend(&text, ", solved ", score.solved, " of ", groups[*best].runs.size());
  }
  return absl::StrCat(text, ", median loss ", FormatNumber(score.median_loss), ".");
}

google::protobuf::Struct SweepJson(const std::string& sweep,
                                   const std::vector<SweepGroup>& groups) {
  std::vector<JobSummary> all;
  for (const SweepGroup& group : groups) {
    all.insert(all.end(), group.runs.begin(), group.runs.end());
  }
  google::protobuf::Struct result = ComparisonJson(all);
  auto& fields = *result.mutable_fields();
  fields["sweep"].set_string_value(sweep);
  if (const auto best = BestOf(groups)) fields["best"].set_string_value(groups[*best].clip);
  for (const SweepGroup& group : groups) {
    const SweepScore score = ScoreOf(group);
    auto& row = *fields["clips"].mutable_list_value()->add_values()->mutable_struct_value();
    (*row.mutable_fields())["clip"].set_string_value(group.clip);
    (*row.mutable_fields())["runs"] = NumberJson(static_cast<double>(group.runs.size()));
    (*row.mutable_fields())["failed"] = NumberJson(score.failed);
    if (score.can_solve) (*row.mutable_fields())["solved"] = NumberJson(score.solved);
    (*row.mutable_fields())["median_loss"] = NumberJson(score.median_loss);
    (*row.mutable_fields())["worst_loss"] = NumberJson(score.worst_loss);
    (*row.mutable_fields())["mean_clip_rate"] = NumberJson(score.mean_clip_rate);
  }
  return result;
}

Command SweepCommand() {
  const auto flags = std::make_shared<SweepFlags>();
  Command command{
      .name = "sweep",
      .purpose = "Try several ways to clip on one job and several seeds, and say which is best.",
      .description =
          "Takes the same description of a job as submit, but for clipping and seed. Submits one "
          "job for each way to clip and each seed, waits for all and compares them: most runs "
          "solved (95 % of the answers right, where the task tells), then the lowest median loss, "
          "wins. Ctrl-C ends the waiting, not the jobs.\n"
          "Exit codes: 0 there is a best one, 1 no run ended with a finite loss, 6 --timeout, 130 "
          "Ctrl-C.",
      .examples = {"sweep --file job.yaml --seeds 0-4",
                   "sweep --task temporal-order --cell rnn-tanh --optimizer sgd --lr 0.1 --clips "
                   "none,0.5,1,value:0.1 --seeds 0,1,2"}};
  for (Flag& flag : FlagsOf(&flags->job)) {
    const bool varied = absl::StartsWith(flag.names, "--clip") || flag.names == "--seed";
    if (!varied) command.flags.push_back(std::move(flag));
  }
  command.flags.push_back({.names = "--clips",
                           .value = "LIST",
                           .help =
                               "Ways to clip, separated by commas: norms, none, l1:NORM, inf:NORM, "
                               "parameter:NORM, value:X.",
                           .default_text = kDefaultClips,
                           .field = "clipping",
                           .group = kSweeping,
                           .set = Into(&flags->clips)});
  command.flags.push_back({.names = "--seeds",
                           .value = "LIST",
                           .help = "Seeds, each for every way to clip: 0,1,2 or 0-4.",
                           .default_text = "that of the file, else 0",
                           .field = "seed",
                           .group = kSweeping,
                           .set = Into(&flags->seeds)});
  command.flags.push_back({.names = "--id",
                           .value = "ID",
                           .help = "Beginning of the jobs' ids, and their label 'sweep'.",
                           .default_text = "a random one",
                           .field = "job_id",
                           .group = kSweeping,
                           .set = Into(&flags->id)});
  command.flags.push_back({.names = "--reconnect",
                           .help = "Wait for a server that goes away.",
                           .group = kSweeping,
                           .set = Into(&flags->reconnect)});
  command.run = [flags](Session* session) { return RunSweep(*flags, session); };
  return command;
}

}  // namespace gradwatch::cli
