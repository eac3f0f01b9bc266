#ifndef GRADWATCH_CLIENT_CLI_JOB_FLAGS_H_
#define GRADWATCH_CLIENT_CLI_JOB_FLAGS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command.h"
#include "google/protobuf/repeated_field.h"
#include "gradwatch/v1/clipping.pb.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::cli {

// --- values of flags ---

// "0.5" or "none" and so on into the list of policies: value, then per parameter, then global.
struct ClipFlags {
  std::string global;      // --clip: a norm, or "none".
  std::string value;       // --clip-value: "MIN,MAX", either may be empty; "X" is "-X,X".
  std::string parameter;   // --clip-parameter-norm: a norm.
  std::string order;       // --clip-order: l1, l2 or inf.
  std::string convention;  // --clip-convention: torch or exact.

  bool given() const;
  // INVALID_ARGUMENT names the flag. Numbers out of range are left for the server to refuse.
  absl::StatusOr<v1::Clipping> ToProto() const;
};
std::vector<Flag> FlagsOf(ClipFlags* clip);

// Policies separated by commas: "0.5" or "l2:0.5" (global norm), "l1:3", "inf:0.1", "parameter:1"
// (each tensor's L2 norm), "value:0.1" (entries from -0.1 to 0.1). INVALID_ARGUMENT says what is
// wanted; numbers out of range are left for the server to refuse.
absl::StatusOr<std::vector<v1::ClipPolicy>> ParsePolicies(const std::string& text);

// "uniform", "orthogonal:1.1", "identity:1", "normal:0.1", "constant:0"; the number after
// orthogonal and identity may be left out and is 1 then.
absl::StatusOr<v1::Initializer> ParseInitializer(const std::string& text);

// "EXPLODING_ABS:threshold=500,for=3,disabled": settings of one rule. Keys: threshold, second,
// severity, warmup, for, resolve, cooldown, window, disabled, enabled.
absl::StatusOr<v1::RuleSettings> ParseRule(const std::string& text);

// Puts `rule` in place of the settings of the same rule, or adds it.
void MergeRule(const v1::RuleSettings& rule,
               google::protobuf::RepeatedPtrField<v1::RuleSettings>* rules);

// "NAME: EXPRESSION" or "NAME,severity=crit,warmup=0,cooldown=10: EXPRESSION": a rule of the job's
// own. What the expression may say is the server's business.
absl::StatusOr<v1::CustomRule> ParseCustomRule(const std::string& text);

// Puts `rule` in place of the one of the same name, or adds it.
void MergeCustomRule(const v1::CustomRule& rule,
                     google::protobuf::RepeatedPtrField<v1::CustomRule>* rules);

// "key=value" into the map. INVALID_ARGUMENT without "=".
absl::Status ParseLabel(const std::string& text,
                        google::protobuf::Map<std::string, std::string>* labels);

// --- a whole job ---

// The flags that describe a job, for submit and check.
struct JobFlags {
  std::string file;                  // --file
  std::string task;                  // --task
  std::string text_path;             // --text
  std::string csv_path;              // --csv
  std::vector<std::string> targets;  // --target
  std::vector<std::string> inputs;   // --input
  std::string dataset;               // --dataset
  std::string optimizer;             // --optimizer
  ClipFlags clip;
  // Changes that single flags ask for, in the order of the help.
  std::vector<std::function<absl::Status(v1::Job*)>> edits;
};
std::vector<Flag> FlagsOf(JobFlags* job);

// What the file and the flags ask for; flags win. Data sets of --text and --csv are not named yet.
absl::StatusOr<v1::Job> BuildJob(const JobFlags& flags);

// The same, after uploading what --text or --csv names (or finding the same bytes on the server).
absl::StatusOr<v1::Job> BuildJobAndUpload(const JobFlags& flags, Session* session);

// A file that cannot be read here is a wrong argument; what the server says stays as it is.
absl::Status UploadError(const absl::Status& status);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_JOB_FLAGS_H_
