#include "client/cli/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/describe.h"
#include "google/protobuf/util/time_util.h"

namespace gradwatch::cli {
namespace {

std::string Exact(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  return std::string(digits, end);
}

std::string Exact(bool present, double value) { return present ? Exact(value) : ""; }

std::string Quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

void LeaveEmpty(int count, std::vector<std::string>* cells) {
  cells->resize(cells->size() + static_cast<size_t>(count));
}

std::string Line(const std::vector<std::string>& cells) {
  return absl::StrCat(absl::StrJoin(cells, ","), "\n");
}

}  // namespace

std::string CsvHeader(const v1::Job& job) {
  std::vector<std::string> cells = {"step",
                                    "updates_applied",
                                    "time",
                                    "duration_us",
                                    "loss",
                                    "learning_rate",
                                    "norm_before",
                                    "norm_after",
                                    "clip_coefficient",
                                    "clipped",
                                    "skipped",
                                    "nonfinite_count",
                                    "nonfinite_tensor",
                                    "nonfinite_time_step",
                                    "last_finite_norm",
                                    "update_norm",
                                    "update_ratio",
                                    "growth_factor",
                                    "horizon",
                                    "growth_decades",
                                    "evaluation_loss",
                                    "evaluation_accuracy",
                                    "evaluation_solved_share",
                                    "gradient_cosine",
                                    "distance_from_start",
                                    "distance_ratio"};
  for (const char* what : {"norm/", "max_abs/"}) {
    for (const v1::ParameterInfo& parameter : job.parameters()) {
      cells.push_back(Quoted(absl::StrCat(what, parameter.name())));
    }
  }
  for (const char* what : {"shadow_clipped/", "shadow_coefficient/"}) {
    int number = 0;
    for (const v1::ClipPolicy& policy : job.shadow_clips()) {
      cells.push_back(Quoted(absl::StrCat(what, ++number, " ", DescribePolicy(policy))));
    }
  }
  return Line(cells);
}

std::string CsvRow(const v1::StepStats& step, const v1::Job& job) {
  const v1::EvaluationResult& evaluation = step.evaluation();
  std::vector<std::string> cells = {
      absl::StrCat(step.step()),
      absl::StrCat(step.updates_applied()),
      step.has_time() ? google::protobuf::util::TimeUtil::ToString(step.time()) : "",
      absl::StrCat(step.duration_us()),
      Exact(step.loss()),
      Exact(step.learning_rate()),
      Exact(step.norm_before()),
      Exact(step.has_norm_after(), step.norm_after()),
      Exact(step.has_clip_coefficient(), step.clip_coefficient()),
      step.clipped() ? "true" : "false",
      step.skipped() ? "true" : "false",
      absl::StrCat(step.nonfinite_count()),
      Quoted(step.nonfinite_origin().tensor()),
      step.nonfinite_origin().has_time_step() ? absl::StrCat(step.nonfinite_origin().time_step())
                                              : "",
      Exact(step.has_last_finite_norm(), step.last_finite_norm()),
      Exact(step.has_update_norm(), step.update_norm()),
      Exact(step.has_update_ratio(), step.update_ratio()),
      Exact(step.has_growth(), step.growth().growth_factor()),
      Exact(step.growth().has_horizon(), step.growth().horizon()),
      Exact(step.has_growth(), step.growth().decades()),
      Exact(step.has_evaluation(), evaluation.loss()),
      Exact(evaluation.has_accuracy(), evaluation.accuracy()),
      Exact(evaluation.has_solved_share(), evaluation.solved_share()),
      Exact(step.has_gradient_cosine(), step.gradient_cosine()),
      Exact(step.has_distance_from_start(), step.distance_from_start()),
      Exact(step.has_distance_ratio(), step.distance_ratio())};
  const int tensors = std::min(step.tensors_size(), job.parameters_size());
  for (int i = 0; i < tensors; ++i) cells.push_back(Exact(step.tensors(i).norm()));
  LeaveEmpty(job.parameters_size() - tensors, &cells);
  for (int i = 0; i < tensors; ++i) cells.push_back(Exact(step.tensors(i).max_abs()));
  LeaveEmpty(job.parameters_size() - tensors, &cells);
  const int shadows = std::min(step.shadow_reports_size(), job.shadow_clips_size());
  for (int i = 0; i < shadows; ++i) {
    cells.emplace_back(step.shadow_reports(i).clipped() ? "true" : "false");
  }
  LeaveEmpty(job.shadow_clips_size() - shadows, &cells);
  for (int i = 0; i < shadows; ++i) {
    const v1::ShadowReport& shadow = step.shadow_reports(i);
    cells.push_back(Exact(shadow.has_coefficient(), shadow.coefficient()));
  }
  LeaveEmpty(job.shadow_clips_size() - shadows, &cells);
  return Line(cells);
}

}  // namespace gradwatch::cli
