#include "client/cli/command.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/util/json_util.h"
#include "proto/support/closest_name.h"

namespace gradwatch::cli {
namespace {

std::string Named(absl::string_view collection, absl::string_view id) {
  return absl::StartsWith(id, collection) ? std::string(id) : absl::StrCat(collection, id);
}

}  // namespace

absl::StatusOr<client::Client*> Session::Connect(absl::Duration timeout, bool waits) {
  if (client_ != nullptr) return client_.get();
  client::ClientOptions wanted = options_.client;
  if (waits || !options_.timeout_given) wanted.timeout = timeout;
  wanted.cancellation = environment_.interrupt;
  absl::StatusOr<std::unique_ptr<client::Client>> created = client::Client::Create(wanted);
  if (!created.ok()) return created.status();
  client_ = *std::move(created);
  return client_.get();
}

std::string Session::Paint(Color color, absl::string_view text) const {
  const auto no_color = environment_.variables.find("NO_COLOR");
  const bool unwanted = no_color != environment_.variables.end() && !no_color->second.empty();
  const bool paint = options_.color == "always" ||
                     (options_.color == "auto" && environment_.out_is_terminal && !unwanted);
  if (!paint || text.empty()) return std::string(text);
  absl::string_view code = "1";
  switch (color) {
    case Color::kBold:
      code = "1";
      break;
    case Color::kDim:
      code = "2";
      break;
    case Color::kRed:
      code = "31";
      break;
    case Color::kYellow:
      code = "33";
      break;
    case Color::kGreen:
      code = "32";
      break;
  }
  return absl::StrCat("\033[", code, "m", text, "\033[0m");
}

void Session::Note(absl::string_view line) const {
  if (!options_.quiet) *environment_.err << line << std::endl;
}

void Session::PrintJson(const google::protobuf::Message& message, bool one_line) const {
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  print.always_print_primitive_fields = true;
  print.add_whitespace = !one_line;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, print);
  if (!status.ok()) Note(absl::StrCat("gradwatch: cannot print as JSON: ", status.ToString()));
  out() << text << (one_line ? "\n" : "") << std::flush;
}

SetFlag Into(std::string* target) {
  return [target](const std::string& value) {
    *target = value;
    return absl::OkStatus();
  };
}

SetFlag Into(std::vector<std::string>* target) {
  return [target](const std::string& value) {
    target->push_back(value);
    return absl::OkStatus();
  };
}

SetFlag Into(int64_t* target) {
  return [target](const std::string& value) {
    if (absl::SimpleAtoi(value, target)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("wants a whole number, not '", value, "'"));
  };
}

SetFlag Into(double* target) {
  return [target](const std::string& value) {
    if (absl::SimpleAtod(value, target)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("wants a number, not '", value, "'"));
  };
}

SetFlag Into(absl::Duration* target) {
  return [target](const std::string& value) {
    double seconds = 0;
    const bool parsed = absl::SimpleAtod(value, &seconds) ? (*target = absl::Seconds(seconds), true)
                                                          : absl::ParseDuration(value, target);
    if (parsed && *target >= absl::ZeroDuration()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("wants seconds, or a time such as 500ms or 2m, not '", value, "'"));
  };
}

SetFlag Into(bool* target) {
  return [target](const std::string&) {
    *target = true;
    return absl::OkStatus();
  };
}

SetFlag OneOf(std::vector<std::string> choices, std::string* target) {
  return [choices = std::move(choices), target](const std::string& value) {
    for (const std::string& choice : choices) {
      if (choice == value) {
        *target = value;
        return absl::OkStatus();
      }
    }
    return absl::InvalidArgumentError(absl::StrCat("must be one of ", absl::StrJoin(choices, ", "),
                                                   ", not '", value, "'",
                                                   DidYouMean(value, choices)));
  };
}

Flag JobArgument(std::string* job) {
  return {.names = "JOB",
          .value = "JOB",
          .help = "The job's id, with or without \"jobs/\".",
          .set = Into(job)};
}

std::string JobName(absl::string_view id) { return Named("jobs/", id); }

std::string DatasetName(absl::string_view id) { return Named("datasets/", id); }

std::string IdOf(absl::string_view name) {
  return std::string(absl::StripPrefix(absl::StripPrefix(name, "jobs/"), "datasets/"));
}

}  // namespace gradwatch::cli
