#include "proto/support/spec_file.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/time_util.h"
#include "proto/support/closest_name.h"
#include "proto/support/errors.h"

namespace gradwatch {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::OneofDescriptor;
using google::protobuf::Reflection;

// Problems that are reported of one file; more of them help nobody.
constexpr size_t kProblemsMax = 50;
// A value that is quoted in a message is cut here.
constexpr size_t kQuotedMax = 60;

std::string Quoted(absl::string_view text) {
  std::string shown = absl::CHexEscape(text.substr(0, kQuotedMax));
  if (text.size() > kQuotedMax) shown += "...";
  return absl::StrCat("'", shown, "'");
}

std::string KindOf(const YAML::Node& node) {
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  if (node.IsNull()) return "nothing";
  return Quoted(node.Scalar());
}

// Plain scalars have the tag "?", quoted ones "!".
bool IsQuoted(const YAML::Node& node) { return node.Tag() == "!"; }

std::string Join(absl::string_view path, absl::string_view name) {
  return path.empty() ? std::string(name) : absl::StrCat(path, ".", name);
}

// CELL_ for gradwatch.v1.Model.Cell: what every value's name starts with.
std::string PrefixOf(const EnumDescriptor& type) {
  std::string prefix;
  for (const char c : type.name()) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(c);
  }
  return prefix + '_';
}

std::string ShortName(const EnumValueDescriptor& value, const std::string& prefix) {
  return std::string(absl::StripPrefix(value.name(), prefix));
}

const EnumValueDescriptor* FindEnumValue(const EnumDescriptor& type, absl::string_view text) {
  int32_t number = 0;
  if (absl::SimpleAtoi(text, &number)) return type.FindValueByNumber(number);
  const std::string wanted = absl::StrReplaceAll(absl::AsciiStrToUpper(text), {{"-", "_"}});
  const std::string prefix = PrefixOf(type);
  for (int i = 0; i < type.value_count(); ++i) {
    const EnumValueDescriptor& value = *type.value(i);
    if (value.name() == wanted) return &value;
    // "Unspecified" is no choice that a person makes; its full name is left for copies of jobs.
    if (i > 0 && ShortName(value, prefix) == wanted) return &value;
  }
  return nullptr;
}

std::vector<std::string> EnumChoices(const EnumDescriptor& type) {
  const std::string prefix = PrefixOf(type);
  std::vector<std::string> choices;
  for (int i = 1; i < type.value_count(); ++i) {
    choices.push_back(ShortName(*type.value(i), prefix));
  }
  return choices;
}

// Whole numbers as proto JSON has them: also 1e3 and 5.0, as long as nothing is lost.
template <typename Integer>
bool ParseInteger(const std::string& text, Integer* value) {
  if (absl::SimpleAtoi(text, value)) return true;
  double real = 0;
  constexpr double kExact = 9007199254740992.0;
  if (!absl::SimpleAtod(text, &real) || real != std::floor(real)) return false;
  if (std::abs(real) > kExact ||
      real < static_cast<double>(std::numeric_limits<Integer>::lowest()) ||
      real > static_cast<double>(std::numeric_limits<Integer>::max())) {
    return false;
  }
  *value = static_cast<Integer>(real);
  return true;
}

bool ParseReal(std::string text, double* value) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (lower == ".nan") text = "nan";
  if (lower == ".inf" || lower == "+.inf") text = "inf";
  if (lower == "-.inf") text = "-inf";
  // SimpleAtod turns what is too large into an infinity.
  return absl::SimpleAtod(text, value) && (!std::isinf(*value) || absl::StrContains(lower, "inf"));
}

// Walks one document and fills one message.
class SpecReader {
 public:
  void ReadMessage(const YAML::Node& node, const std::string& path, int depth, Message* message);
  void ReadValue(const YAML::Node& node, const std::string& path, int depth,
                 const FieldDescriptor& field, Message* message);
  void Problem(const YAML::Mark& mark, const std::string& path, absl::string_view description) {
    if (problems_.size() >= kProblemsMax) return;
    problems_.push_back({path, mark.is_null()
                                   ? std::string(description)
                                   : absl::StrCat("line ", mark.line + 1, ": ", description)});
  }
  absl::Status status() const {
    return problems_.empty() ? absl::OkStatus() : InvalidFields(problems_);
  }

 private:
  struct Seen {
    std::map<const FieldDescriptor*, int> lines;
    std::map<const OneofDescriptor*, const FieldDescriptor*> oneofs;
  };

  bool Enter(const YAML::Node& node, const std::string& path, int depth);
  bool ReadWellKnown(const YAML::Node& node, const std::string& path, Message* message);
  const FieldDescriptor* FindField(const YAML::Node& key, const std::string& path,
                                   const Descriptor& type);
  bool Remember(const YAML::Node& key, const std::string& path, const FieldDescriptor& field,
                Seen* seen);
  void ReadField(const YAML::Node& node, const std::string& path, int depth,
                 const FieldDescriptor& field, Message* message);
  void ReadMap(const YAML::Node& node, const std::string& path, int depth,
               const FieldDescriptor& field, Message* message);
  void ReadEnum(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                Message* message);
  void Wrong(const YAML::Node& node, const std::string& path, absl::string_view wanted) {
    Problem(node.Mark(), path, absl::StrCat("must be ", wanted, ", is ", KindOf(node)));
  }

  std::vector<FieldViolation> problems_;
  int values_ = 0;
  bool gave_up_ = false;
};

bool SpecReader::Enter(const YAML::Node& node, const std::string& path, int depth) {
  if (gave_up_) return false;
  if (depth > kSpecFileDepthMax) {
    Problem(node.Mark(), path, absl::StrCat("is nested deeper than ", kSpecFileDepthMax));
    gave_up_ = true;
  } else if (++values_ > kSpecFileValuesMax) {
    Problem(node.Mark(), path,
            absl::StrCat("the file has more than ", kSpecFileValuesMax,
                         " values, those of aliases counted each time"));
    gave_up_ = true;
  }
  return !gave_up_;
}

bool SpecReader::ReadWellKnown(const YAML::Node& node, const std::string& path, Message* message) {
  using google::protobuf::util::TimeUtil;
  const std::string& name = message->GetDescriptor()->full_name();
  if (name == "google.protobuf.Timestamp") {
    google::protobuf::Timestamp value;
    if (!node.IsScalar() || !TimeUtil::FromString(node.Scalar(), &value)) {
      Wrong(node, path, "a time such as 2026-01-31T12:00:00Z");
    } else {
      message->CopyFrom(value);
    }
    return true;
  }
  if (name == "google.protobuf.Duration") {
    google::protobuf::Duration value;
    if (!node.IsScalar() || !TimeUtil::FromString(node.Scalar(), &value)) {
      Wrong(node, path, "a duration such as 1.5s");
    } else {
      message->CopyFrom(value);
    }
    return true;
  }
  return false;
}

const FieldDescriptor* SpecReader::FindField(const YAML::Node& key, const std::string& path,
                                             const Descriptor& type) {
  if (!key.IsScalar()) {
    Problem(key.Mark(), path, "a key must be a name");
    return nullptr;
  }
  const FieldDescriptor* field = type.FindFieldByName(key.Scalar());
  if (field == nullptr) field = type.FindFieldByCamelcaseName(key.Scalar());
  if (field != nullptr) return field;
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  std::string hint = DidYouMean(key.Scalar(), names);
  if (hint.empty() && names.size() <= 12) {
    hint = absl::StrCat("; known are ", absl::StrJoin(names, ", "));
  }
  Problem(key.Mark(), Join(path, key.Scalar().substr(0, kQuotedMax)),
          absl::StrCat("unknown key ", Quoted(key.Scalar()), hint));
  return nullptr;
}

bool SpecReader::Remember(const YAML::Node& key, const std::string& path,
                          const FieldDescriptor& field, Seen* seen) {
  const int line = key.Mark().line + 1;
  const auto [at, is_new] = seen->lines.emplace(&field, line);
  if (!is_new) {
    Problem(key.Mark(), path, absl::StrCat("is set twice, first in line ", at->second));
    return false;
  }
  const OneofDescriptor* oneof = field.real_containing_oneof();
  if (oneof == nullptr) return true;
  const auto [other, is_first] = seen->oneofs.emplace(oneof, &field);
  if (is_first) return true;
  Problem(key.Mark(), path,
          absl::StrCat("only one of '", other->second->name(), "' (line ",
                       seen->lines[other->second], ") and '", field.name(), "' may be set"));
  return false;
}

void SpecReader::ReadMessage(const YAML::Node& node, const std::string& path, int depth,
                             Message* message) {
  if (!Enter(node, path, depth)) return;
  if (ReadWellKnown(node, path, message)) return;
  if (node.IsNull()) {
    Problem(node.Mark(), path, "has no value: write {} for one without settings, or leave it out");
    return;
  }
  if (!node.IsMap()) {
    Wrong(node, path, "a map of settings");
    return;
  }
  Seen seen;
  for (const auto& entry : node) {
    const FieldDescriptor* field = FindField(entry.first, path, *message->GetDescriptor());
    if (field == nullptr) continue;
    const std::string at = Join(path, field->name());
    if (!Remember(entry.first, at, *field, &seen)) continue;
    ReadField(entry.second, at, depth + 1, *field, message);
  }
}

void SpecReader::ReadField(const YAML::Node& node, const std::string& path, int depth,
                           const FieldDescriptor& field, Message* message) {
  if (field.is_map()) {
    ReadMap(node, path, depth, field, message);
  } else if (!field.is_repeated()) {
    ReadValue(node, path, depth, field, message);
  } else if (!node.IsSequence()) {
    if (Enter(node, path, depth)) Wrong(node, path, "a list");
  } else {
    if (!Enter(node, path, depth)) return;
    int index = 0;
    for (const auto& item : node) {
      ReadValue(item, absl::StrCat(path, "[", index++, "]"), depth + 1, field, message);
    }
  }
}

void SpecReader::ReadMap(const YAML::Node& node, const std::string& path, int depth,
                         const FieldDescriptor& field, Message* message) {
  if (!Enter(node, path, depth)) return;
  if (!node.IsMap()) {
    Wrong(node, path, "a map");
    return;
  }
  const FieldDescriptor& key_field = *field.message_type()->map_key();
  const FieldDescriptor& value_field = *field.message_type()->map_value();
  std::set<std::string> keys;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      Problem(entry.first.Mark(), path, "a key must be a name");
      continue;
    }
    const std::string at = absl::StrCat(path, "[", Quoted(entry.first.Scalar()), "]");
    if (!keys.insert(entry.first.Scalar()).second) {
      Problem(entry.first.Mark(), at, "is set twice");
      continue;
    }
    Message* pair = message->GetReflection()->AddMessage(message, &field);
    ReadValue(entry.first, at, depth + 1, key_field, pair);
    ReadValue(entry.second, at, depth + 1, value_field, pair);
  }
}

void SpecReader::ReadEnum(const YAML::Node& node, const std::string& path,
                          const FieldDescriptor& field, Message* message) {
  const EnumValueDescriptor* value = FindEnumValue(*field.enum_type(), node.Scalar());
  if (value == nullptr) {
    const std::vector<std::string> choices = EnumChoices(*field.enum_type());
    Problem(node.Mark(), path,
            absl::StrCat("must be one of ", absl::StrJoin(choices, ", "), ", is ",
                         Quoted(node.Scalar()), DidYouMean(node.Scalar(), choices)));
    return;
  }
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddEnum(message, &field, value);
  } else {
    reflection.SetEnum(message, &field, value);
  }
}

void SpecReader::ReadValue(const YAML::Node& node, const std::string& path, int depth,
                           const FieldDescriptor& field, Message* message) {
  const Reflection& reflection = *message->GetReflection();
  const bool repeated = field.is_repeated();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    ReadMessage(node, path, depth,
                repeated ? reflection.AddMessage(message, &field)
                         : reflection.MutableMessage(message, &field));
    return;
  }
  if (!Enter(node, path, depth)) return;
  if (node.IsNull() && !repeated) return;
  if (!node.IsScalar()) {
    Wrong(node, path, "a single value");
    return;
  }
  const std::string& text = node.Scalar();
  const auto set_integer = [&](auto value, auto add, auto set, absl::string_view wanted) {
    if (!ParseInteger(text, &value)) {
      Wrong(node, path, wanted);
    } else if (repeated) {
      (reflection.*add)(message, &field, value);
    } else {
      (reflection.*set)(message, &field, value);
    }
  };
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      set_integer(int32_t{}, &Reflection::AddInt32, &Reflection::SetInt32,
                  "a whole number of 32 bits");
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      set_integer(int64_t{}, &Reflection::AddInt64, &Reflection::SetInt64,
                  "a whole number of 64 bits");
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      set_integer(uint32_t{}, &Reflection::AddUInt32, &Reflection::SetUInt32,
                  "a whole number of 32 bits, not negative");
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      set_integer(uint64_t{}, &Reflection::AddUInt64, &Reflection::SetUInt64,
                  "a whole number of 64 bits, not negative");
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT: {
      double value = 0;
      if (!ParseReal(text, &value)) {
        Wrong(node, path, "a number");
      } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
        repeated ? reflection.AddDouble(message, &field, value)
                 : reflection.SetDouble(message, &field, value);
      } else {
        const auto narrow = static_cast<float>(value);
        repeated ? reflection.AddFloat(message, &field, narrow)
                 : reflection.SetFloat(message, &field, narrow);
      }
      break;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      const std::string lower = absl::AsciiStrToLower(text);
      if (IsQuoted(node) || (lower != "true" && lower != "false")) {
        Wrong(node, path, "true or false");
      } else {
        repeated ? reflection.AddBool(message, &field, lower == "true")
                 : reflection.SetBool(message, &field, lower == "true");
      }
      break;
    }
    case FieldDescriptor::CPPTYPE_ENUM:
      ReadEnum(node, path, field, message);
      break;
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string value = text;
      if (field.type() == FieldDescriptor::TYPE_BYTES && !absl::Base64Unescape(text, &value)) {
        Wrong(node, path, "base64");
        break;
      }
      repeated ? reflection.AddString(message, &field, value)
               : reflection.SetString(message, &field, value);
      break;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
}

absl::Status CannotRead(const std::string& path, int error) {
  const std::string message = absl::StrCat("cannot read ", path, ": ", std::strerror(error));
  if (error == ENOENT) return absl::NotFoundError(message);
  if (error == EACCES) return absl::PermissionDeniedError(message);
  return absl::UnknownError(message);
}

}  // namespace

absl::Status ParseSpec(absl::string_view text, Message* message) {
  message->Clear();
  SpecReader reader;
  if (text.size() > kSpecFileBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a job file may have ", kSpecFileBytesMax, " bytes, this has ", text.size()));
  }
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      reader.Problem(documents[1].Mark(), "",
                     absl::StrCat("one document is wanted, here are ", documents.size()));
    } else if (documents.empty() || documents[0].IsNull()) {
      reader.Problem(YAML::Mark::null_mark(), "", "the file has no settings");
    } else {
      reader.ReadMessage(documents[0], "", 0, message);
    }
  } catch (const YAML::Exception& error) {
    reader.Problem(error.mark, "", absl::StrCat("this is not YAML or JSON: ", error.msg));
  }
  return reader.status();
}

absl::Status SetField(const std::string& path, const std::string& value, Message* message) {
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(names[i]);
    const bool is_message = field != nullptr && !field->is_repeated() &&
                            field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (field == nullptr || is_message != (i + 1 < names.size())) {
      return absl::InternalError(absl::StrCat("no single value at ", path));
    }
    if (!is_message) {
      SpecReader reader;
      reader.ReadValue(YAML::Node(value), path, 0, *field, message);
      return reader.status();
    }
    message = message->GetReflection()->MutableMessage(message, field);
  }
  return absl::InternalError("an empty path");
}

absl::Status ReadSpecFile(const std::string& path, Message* message) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rbe");
  if (file == nullptr) return CannotRead(path, errno);
  std::string text(kSpecFileBytesMax + 1, '\0');
  errno = 0;
  text.resize(std::fread(text.data(), 1, text.size(), file));
  const int error = std::ferror(file) != 0 ? errno : 0;
  if (file != stdin) std::fclose(file);
  if (error != 0) return CannotRead(path, error);
  if (text.size() > kSpecFileBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " is larger than the ", kSpecFileBytesMax, " bytes that are allowed"));
  }
  return ParseSpec(text, message);
}

}  // namespace gradwatch
