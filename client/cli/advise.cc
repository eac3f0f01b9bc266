// advise: which clip threshold, and why.
#include "client/cli/advise.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/describe.h"
#include "client/cli/exit_code.h"
#include "client/cli/text.h"

namespace gradwatch::cli {
namespace {

constexpr int kBarsMax = 16;

struct Bar {
  double lower;
  double upper;
  int64_t steps;
};

// The bins in groups of equally many, so that there are at most kBarsMax.
std::vector<Bar> BarsOf(const v1::NormDistribution& norms) {
  const int group = (norms.bins_size() + kBarsMax - 1) / kBarsMax;
  std::vector<Bar> bars;
  for (int i = 0; i < norms.bins_size(); ++i) {
    const v1::NormBin& bin = norms.bins(i);
    if (i % group == 0) bars.push_back({bin.lower(), bin.upper(), 0});
    bars.back().upper = bin.upper();
    bars.back().steps += bin.steps();
  }
  return bars;
}

std::string Number3(double value) {
  const std::string text = FormatNumber(value);
  return text.size() <= 9 ? text : text.substr(0, 9);
}

std::string Pad(absl::string_view text, size_t width) {
  const size_t shown = DisplayWidth(text);
  return absl::StrCat(std::string(width > shown ? width - shown : 0, ' '), text);
}

struct AxisMark {
  double threshold;
  std::string name;
};

std::vector<AxisMark> MarksOf(const v1::ClipAdvice& advice) {
  std::vector<AxisMark> marks = {{advice.recommended().max_norm(), "advised"}};
  if (advice.has_alternative()) marks.push_back({advice.alternative().max_norm(), "or"});
  if (advice.has_current()) marks.push_back({advice.current().max_norm(), "now"});
  return marks;
}

std::string QuantileLine(const v1::NormDistribution& norms) {
  std::vector<std::string> parts = {
      absl::StrCat("mean ", FormatNumber(norms.mean())),
      absl::StrCat("p10 ", FormatNumber(norms.p10())),
      absl::StrCat("p50 ", FormatNumber(norms.p50())),
      absl::StrCat("p90 ", FormatNumber(norms.p90())),
      absl::StrCat("p99 ", FormatNumber(norms.p99())),
      absl::StrCat("max ", FormatNumber(norms.maximum())),
  };
  if (norms.has_tail_ratio()) {
    parts.push_back(absl::StrCat("p99/p50 ", FormatNumber(norms.tail_ratio())));
  }
  return absl::StrJoin(parts, ", ");
}

std::string StepsText(const v1::NormDistribution& norms) {
  std::string text = absl::StrCat("steps ", norms.first_step(), " to ", norms.last_step());
  if (norms.nonfinite_steps() > 0) {
    absl::StrAppend(&text, " (", norms.nonfinite_steps(), " not finite)");
  }
  return text;
}

std::vector<std::string> EffectRow(const std::string& what, const v1::ThresholdEffect& effect) {
  return {absl::StrCat("norm ", FormatNumber(effect.max_norm())), what,
          effect.has_clip_rate() ? FormatShare(effect.clip_rate()) : "-",
          effect.has_mean_coefficient() ? FormatNumber(effect.mean_coefficient()) : "-"};
}

std::string EffectTable(const v1::ClipAdvice& advice, const v1::Job& job) {
  Table table({{"THRESHOLD"}, {""}, {"CLIPS", Align::kRight}, {"MEAN FACTOR", Align::kRight}});
  for (std::vector<std::string>& row : ThresholdRows(advice)) table.AddRow(std::move(row));
  for (int i = 0; i < std::min(advice.shadows_size(), job.shadow_clips_size()); ++i) {
    const v1::ShadowSummary& shadow = advice.shadows(i);
    table.AddRow({DescribePolicy(job.shadow_clips(i)), "shadow", FormatShare(shadow.clip_rate()),
                  shadow.has_mean_coefficient() ? FormatNumber(shadow.mean_coefficient()) : "-"});
  }
  return table.ToString();
}

std::string ThresholdText(const v1::ClipAdvice& advice) {
  return absl::StrCat(
      "clip the global L2 norm at ", FormatNumber(advice.recommended().max_norm()),
      advice.has_alternative()
          ? absl::StrCat(" (or ", FormatNumber(advice.alternative().max_norm()), ")")
          : "");
}

std::string BasisText(v1::ClipAdvice::Basis basis) {
  switch (basis) {
    case v1::ClipAdvice::BASIS_NO_DATA:
      return "too little data: fewer than 100 steps with a finite norm; a start value";
    case v1::ClipAdvice::BASIS_STEP_SIZE:
      return "step size: with this optimizer the threshold sets the size of most steps";
    case v1::ClipAdvice::BASIS_SPIKE_GUARD:
      return "guard against spikes: this optimizer does not care for the gradient's scale";
    case v1::ClipAdvice::BASIS_EXPLODING:
      return "explosion: the gradient explodes, and the threshold is to hold it";
    default:
      return "";
  }
}

std::string AllowedText(const v1::ClipAdvice& advice) {
  if (!advice.has_allowed_min()) return "";
  return absl::StrCat(FormatNumber(advice.allowed_min()), " to ",
                      FormatNumber(advice.allowed_max()),
                      " (half to ten times the mean norm without its largest 1 %)");
}

std::string SingleEntryText(const v1::ClipAdvice& advice) {
  if (!advice.has_value_threshold()) return "";
  return absl::StrCat(FormatNumber(advice.value_threshold()),
                      ", the 99.9th percentile of their size, up to a factor of 2");
}

std::string ClippedInFact(const v1::ClipAdvice& advice, const v1::Job& job) {
  if (!advice.has_window()) return "";
  return absl::StrCat(FormatShare(advice.clip_rate()), " of these steps, by ",
                      DescribeClipping(job));
}

std::string PublishedTable(const v1::ClipAdvice& advice) {
  Table table({{"PUBLISHED FOR"}, {"THRESHOLD"}, {"BY"}});
  for (const v1::PublishedThreshold& row : advice.published()) {
    table.AddRow({row.setting(), row.threshold(), row.source()});
  }
  return table.ToString();
}

// The command that does what is advised.
std::string NextStep(const v1::ClipAdvice& advice, const v1::Job& job) {
  const std::string clip = FormatNumber(advice.recommended().max_norm());
  if (IsFinal(job.state())) {
    return absl::StrCat("The job has ended: submit it again with --clip ", clip);
  }
  return absl::StrCat("To follow it: gradwatch update ", IdOf(job.name()), " --clip ", clip);
}

}  // namespace

std::string NormPicture(const v1::ClipAdvice& advice, const AdviceStyle& style) {
  const std::vector<Bar> bars = BarsOf(advice.window());
  if (bars.empty()) return "";
  int64_t most = 1;
  for (const Bar& bar : bars) most = std::max(most, bar.steps);
  // "    0.42 to      0.5 |" before and " 1234  < 0.5 advised, 1 or, 1 now" behind.
  constexpr size_t kBefore = 24, kBehind = 36;
  const size_t columns = std::max<size_t>(style.columns, 60) - 1;
  const size_t room = columns - kBefore - kBehind + 12;
  const absl::string_view block = style.unicode ? "█" : "#";
  std::string text;
  for (size_t i = 0; i < bars.size(); ++i) {
    const Bar& bar = bars[i];
    auto length = static_cast<size_t>(std::lround(
        static_cast<double>(room) * static_cast<double>(bar.steps) / static_cast<double>(most)));
    if (bar.steps > 0) length = std::max<size_t>(length, 1);
    std::string line = absl::StrCat(Pad(Number3(bar.lower), 9), " to ", Pad(Number3(bar.upper), 9),
                                    style.unicode ? " │" : " |");
    for (size_t j = 0; j < length; ++j) absl::StrAppend(&line, block);
    if (bar.steps > 0) absl::StrAppend(&line, " ", bar.steps);
    std::vector<std::string> here;
    for (const AxisMark& mark : MarksOf(advice)) {
      const bool first = i == 0 && mark.threshold < bar.lower;
      const bool last = i + 1 == bars.size() && mark.threshold >= bar.upper;
      if (first || last || (mark.threshold >= bar.lower && mark.threshold < bar.upper)) {
        here.push_back(absl::StrCat(mark.name,
                                    first  ? " below, "
                                    : last ? " above, "
                                           : " ",
                                    FormatNumber(mark.threshold)));
      }
    }
    if (!here.empty()) {
      absl::StrAppend(&line, style.unicode ? "  ◄ " : "  < ", absl::StrJoin(here, "; "));
    }
    absl::StrAppend(&text, Shorten(line, columns, style.unicode), "\n");
  }
  return text;
}

std::vector<std::vector<std::string>> ThresholdRows(const v1::ClipAdvice& advice) {
  std::vector<std::vector<std::string>> rows = {EffectRow("advised", advice.recommended())};
  if (advice.has_alternative()) rows.push_back(EffectRow("or", advice.alternative()));
  if (advice.has_current()) rows.push_back(EffectRow("now", advice.current()));
  for (const v1::ThresholdEffect& asked : advice.asked()) rows.push_back(EffectRow("asked", asked));
  return rows;
}

std::vector<std::pair<std::string, std::string>> AdviceRows(const v1::ClipAdvice& advice,
                                                            const v1::Job& job) {
  std::vector<std::pair<std::string, std::string>> rows = {
      {"advice", ThresholdText(advice)},
      {"basis", BasisText(advice.basis())},
      {"reason", advice.reason()},
      {"from", advice.has_window() ? StepsText(advice.window()) : ""},
      {"clipped in fact", ClippedInFact(advice, job)},
      {"allowed range", AllowedText(advice)},
      {"single entries", SingleEntryText(advice)}};
  for (const std::string& assumption : advice.assumptions()) {
    rows.emplace_back("assumed", assumption);
  }
  for (const std::string& warning : advice.warnings()) rows.emplace_back("warning", warning);
  for (const v1::PublishedThreshold& published : advice.published()) {
    rows.emplace_back("published", absl::StrCat(published.setting(), ": ", published.threshold(),
                                                " (", published.source(), ")"));
  }
  rows.emplace_back("next", NextStep(advice, job));
  return rows;
}

std::string DescribeAdvice(const v1::ClipAdvice& advice, const v1::Job& job,
                           const AdviceStyle& style) {
  const size_t width = std::max<size_t>(style.columns, 60) - 1;
  std::string text = absl::StrCat(advice.job(), ": ", ThresholdText(advice), "\n",
                                  Wrap(advice.reason(), width, 0), "\n");
  if (advice.has_window()) {
    absl::StrAppend(&text, "\nnorm before clipping, ", StepsText(advice.window()), "\n",
                    Wrap(QuantileLine(advice.window()), width, 0), "\n",
                    NormPicture(advice, style));
    if (advice.kept().steps() > advice.window().steps()) {
      absl::StrAppend(&text, "all kept ", StepsText(advice.kept()), "\n",
                      Wrap(QuantileLine(advice.kept()), width, 0), "\n");
    }
  }
  absl::StrAppend(&text, "\n", EffectTable(advice, job));
  const auto line = [&](absl::string_view what, const std::string& words) {
    if (!words.empty()) absl::StrAppend(&text, Wrap(absl::StrCat(what, words), width, 2), "\n");
  };
  line("clipped in fact: ", ClippedInFact(advice, job));
  line("allowed range: ", AllowedText(advice));
  line("single entries (--clip-value): ", SingleEntryText(advice));
  text += "\n";
  for (const std::string& assumption : advice.assumptions()) line("- assumed: ", assumption);
  for (const std::string& warning : advice.warnings()) line("! ", warning);
  if (!advice.published().empty()) absl::StrAppend(&text, "\n", PublishedTable(advice));
  absl::StrAppend(&text, "\n", NextStep(advice, job), "\n");
  return text;
}

Command AdviseCommand() {
  struct AdviseFlags {
    std::string job;
    int64_t steps = 0;
    std::vector<double> thresholds;
  };
  const auto flags = std::make_shared<AdviseFlags>();
  Command command{
      .name = "advise",
      .purpose = "Say which clip threshold a job's gradient norms call for, and why.",
      .description =
          "CLIPS is the share of the newest steps whose norm passes the threshold, MEAN FACTOR the "
          "mean of what their gradients would be multiplied by. Works on running jobs and on those "
          "that have ended.",
      .examples = {"advise my-job", "advise my-job --threshold 0.25 --threshold 5",
                   "advise my-job --steps 2000 -o json | jq .recommended.max_norm"},
      .flags = {JobArgument(&flags->job),
                {.names = "--steps",
                 .value = "N",
                 .help = "Look at the newest so many steps with a finite norm, 100 to 1,000,000.",
                 .default_text = "500",
                 .field = "steps",
                 .set = Into(&flags->steps)},
                {.names = "--threshold",
                 .value = "NORM",
                 .help = "Tell what this threshold would do as well; may be repeated.",
                 .field = "thresholds",
                 .repeated = true,
                 .set = [flags](const std::string& text) {
                   double threshold = 0;
                   const absl::Status status = Into(&threshold)(text);
                   if (status.ok()) flags->thresholds.push_back(threshold);
                   return status;
                 }}}};
  command.run = [flags](Session* session) -> absl::StatusOr<int> {
    const absl::StatusOr<client::Client*> client = session->Connect();
    if (!client.ok()) return client.status();
    v1::GetClipAdviceRequest request;
    request.set_name(JobName(flags->job));
    if (flags->steps != 0) request.set_steps(static_cast<int32_t>(flags->steps));
    request.mutable_thresholds()->Assign(flags->thresholds.begin(), flags->thresholds.end());
    const absl::StatusOr<v1::ClipAdvice> advice = (*client)->GetClipAdvice(request);
    if (!advice.ok()) return advice.status();
    if (session->json()) {
      session->PrintJson(*advice);
      return kOk;
    }
    v1::GetJobRequest get;
    get.set_name(request.name());
    const absl::StatusOr<v1::Job> job = (*client)->GetJob(get);
    if (!job.ok()) return job.status();
    const Environment& environment = session->environment();
    session->out() << DescribeAdvice(
        *advice, *job,
        {static_cast<size_t>(std::max(environment.columns, 60)), environment.unicode});
    return kOk;
  };
  return command;
}

}  // namespace gradwatch::cli
