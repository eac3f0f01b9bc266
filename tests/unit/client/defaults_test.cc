// Every default that `submit --help` prints is the one that the proto comment states and the one
// that the engine fills in.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/job_flags.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "server/train/trainer.h"

namespace gradwatch::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The comment in front of a field or oneof in the .proto file.
std::string CommentOf(const Descriptor& type, const std::string& name) {
  std::ifstream file(absl::StrCat(GRADWATCH_SOURCE_DIR, "/proto/", type.file()->name()));
  std::string line, comment;
  bool inside = false;
  const std::regex declares(
      absl::StrCat("^\\s*(.*\\s", name, " = [0-9]+;|oneof ", name, " \\{).*"));
  while (std::getline(file, line)) {
    const std::string trimmed(absl::StripAsciiWhitespace(line));
    if (trimmed == absl::StrCat("message ", type.name(), " {")) inside = true;
    if (!inside) continue;
    if (absl::StartsWith(trimmed, "//")) {
      absl::StrAppend(&comment, trimmed.substr(2), " ");
    } else if (std::regex_match(line, declares)) {
      return comment;
    } else {
      comment.clear();
    }
  }
  return "";
}

// "128" of "…Default: 128. …"; empty when there is none.
std::string DefaultIn(const std::string& comment) {
  const size_t at = comment.find("Default: ");
  if (at == std::string::npos) return "";
  const std::string rest = comment.substr(at + 9);
  return std::string(absl::StripSuffix(rest.substr(0, rest.find_first_of(" ,")), "."));
}

// One spelling for the same value: CELL_LSTM, LSTM and lstm; 1.0 and 1; temporal_order.
std::string Normalised(const FieldDescriptor& field, std::string text) {
  double number = 0;
  if (absl::SimpleAtod(text, &number)) return absl::StrCat(number);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    const std::string& first = field.enum_type()->value(0)->name();
    const std::string prefix = first.substr(0, first.size() - std::string("UNSPECIFIED").size());
    text = std::string(
        absl::StripPrefix(absl::StrReplaceAll(absl::AsciiStrToUpper(text), {{"-", "_"}}), prefix));
  }
  return absl::AsciiStrToLower(text);
}

std::string ValueIn(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  if (!reflection.HasField(message, &field)) return "unset";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(reflection.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection.GetEnum(message, &field)->name();
    default:
      return "unset";
  }
}

// What the help says for one field of a flag: "language 0.1, forecast 0.2" has two.
std::string HelpDefault(const Flag& flag, const std::string& path) {
  std::string text = flag.default_text;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  if (parts[0] == "task" && parts.size() == 3) {
    const std::string task = absl::StrReplaceAll(parts[1], {{"_", "-"}});
    if (const size_t at = text.find(task + " "); at != std::string::npos) {
      text = text.substr(at + task.size() + 1);
    }
  }
  return text.substr(0, text.find_first_of(" ,;"));
}

// A job in which the message of `path` exists, so that its defaults are filled in.
v1::Job JobWith(const std::string& path) {
  v1::Job job;
  Message* message = &job;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(parts[i]);
    message = field->is_repeated() ? message->GetReflection()->AddMessage(message, field)
                                   : message->GetReflection()->MutableMessage(message, field);
  }
  if (path == "model.embedding_width") {
    job.mutable_model()->set_token_input(v1::Model::TOKEN_INPUT_EMBEDDING);
  }
  return job;
}

// Checks one field of one flag.
void ExpectSameDefault(const Flag& flag, const std::string& path) {
  v1::Job job = JobWith(path);
  train::FillDefaults(&job);
  const Message* message = &job;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(parts[i]);
    message = field->is_repeated()
                  ? &message->GetReflection()->GetRepeatedMessage(*message, field, 0)
                  : &message->GetReflection()->GetMessage(*message, field);
  }
  const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(parts.back());
  ASSERT_NE(field, nullptr) << path;
  const std::string in_comment = DefaultIn(CommentOf(*message->GetDescriptor(), parts.back()));
  const std::string filled = Normalised(*field, ValueIn(*message, *field));

  EXPECT_EQ(Normalised(*field, in_comment), filled) << "proto comment against engine: " << path;
  EXPECT_EQ(Normalised(*field, HelpDefault(flag, path)), filled)
      << "help of " << flag.names << " against engine: " << path;
}

// Defaults that are said in words or belong to a whole message; each is checked below.
const std::set<std::string>& InWords() {
  static const auto* const flags = new std::set<std::string>{
      "--task",         "--time-steps-min",    "--input",         "--optimizer",
      "--warmup",       "--truncation",        "--forget-bias",   "--seed",
      "--clip",         "--init-recurrent",    "--init-input",    "--init-bias",
      "--init-readout", "--init-readout-bias", "--init-embedding"};
  return *flags;
}

TEST(DefaultsTest, HelpProtoCommentAndEngineAgree) {
  JobFlags flags;
  int compared = 0;
  for (const Flag& flag : FlagsOf(&flags)) {
    if (flag.field.empty() || flag.default_text.empty() || InWords().contains(flag.names)) continue;
    for (const absl::string_view path : absl::StrSplit(flag.field, ' ')) {
      ExpectSameDefault(flag, std::string(path));
      ++compared;
    }
  }
  EXPECT_GE(compared, 25);
}

TEST(DefaultsTest, DecidedDefaultsOfABareJobHold) {
  v1::Job job;
  train::FillDefaults(&job);

  EXPECT_EQ(job.task().adding().time_steps(), 50);
  EXPECT_EQ(job.model().cell(), v1::Model::CELL_LSTM);
  EXPECT_EQ(job.model().layers(), 1);
  EXPECT_EQ(job.model().hidden_units(), 128);
  EXPECT_TRUE(job.optimizer().has_adam());
  EXPECT_EQ(job.optimizer().learning_rate(), 0.002);
  EXPECT_FALSE(job.optimizer().has_warmup_cosine());
  ASSERT_EQ(job.clipping().policies_size(), 1);
  EXPECT_EQ(job.clipping().policies(0).global_norm().max_norm(), 1.0);
  EXPECT_TRUE(job.training().non_finite().skip());
  EXPECT_EQ(job.training().step_limit(), 2000);
  EXPECT_EQ(job.training().batch_size(), 32);
  EXPECT_FALSE(job.training().has_truncation());
  EXPECT_EQ(job.evaluation().every_steps(), 100);
  EXPECT_EQ(job.evaluation().examples(), 1000);
  EXPECT_EQ(job.statistics_level(), v1::STATISTICS_LEVEL_BASIC);
}

TEST(DefaultsTest, DefaultsInWordsAreThoseOfTheProto) {
  JobFlags flags;
  std::map<std::string, std::string> help;
  for (const Flag& flag : FlagsOf(&flags)) help[flag.names] = flag.default_text;
  const auto comment = [](const Descriptor* type, const std::string& name) {
    return DefaultIn(CommentOf(*type, name));
  };

  EXPECT_EQ(help["--task"], comment(v1::Task::descriptor(), "kind"));
  EXPECT_EQ(help["--optimizer"], comment(v1::Optimizer::descriptor(), "algorithm"));
  EXPECT_EQ(comment(v1::Optimizer::descriptor(), "schedule"), "constant");
  EXPECT_EQ(help["--warmup"], "a constant rate");
  EXPECT_EQ(help["--time-steps-min"], "--time-steps");
  EXPECT_EQ(comment(v1::AddingTask::descriptor(), "time_steps_min"), "time_steps");
  EXPECT_EQ(help["--clip"], "1.0");
  EXPECT_TRUE(absl::StrContains(CommentOf(*v1::Job::descriptor(), "clipping"),
                                "Absent: global L2 norm 1.0"));
  for (const auto& [flag, tensor] :
       std::map<std::string, std::string>{{"--init-recurrent", "recurrent_weights"},
                                          {"--init-input", "input_weights"},
                                          {"--init-bias", "biases"},
                                          {"--init-readout", "readout_weights"},
                                          {"--init-readout-bias", "readout_bias"}}) {
    EXPECT_EQ(help[flag], comment(v1::Initialization::descriptor(), tensor)) << flag;
  }
  EXPECT_EQ(help["--init-embedding"], "normal:1");
  EXPECT_TRUE(absl::StrContains(CommentOf(*v1::Initialization::descriptor(), "embedding"),
                                "Default: normal with deviation 1."));
  EXPECT_EQ(help["--truncation"], "the full length");
  EXPECT_TRUE(absl::StrContains(CommentOf(*v1::Training::descriptor(), "truncation"),
                                "Default: unset, the full length."));
}

}  // namespace
}  // namespace gradwatch::cli
