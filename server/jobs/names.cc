#include "server/jobs/names.h"

#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/base/status.h"
#include "server/data/utf8.h"

namespace gradwatch::jobs {
namespace {

constexpr absl::string_view kIdRule =
    "must be 1 to 63 characters of a-z, 0-9 and '-', starting with a letter";

absl::Status BadToken() {
  return InvalidFields({{"page_token",
                         "is not a token that this list gave with the same arguments; start again "
                         "without one"}});
}

}  // namespace

bool IsId(absl::string_view id) {
  if (id.empty() || id.size() > kIdLengthMax || !absl::ascii_islower(id.front())) return false;
  for (const char c : id) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') return false;
  }
  return true;
}

std::string Quoted(absl::string_view text) {
  constexpr size_t kShown = 80;
  const bool cut = text.size() > kShown;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kShown)), cut ? "…" : "", "'");
}

absl::StatusOr<std::string> IdOf(absl::string_view name, absl::string_view collection,
                                 absl::string_view field) {
  const std::string prefix = absl::StrCat(collection, "/");
  if (absl::StartsWith(name, prefix) && IsId(name.substr(prefix.size()))) {
    return std::string(name.substr(prefix.size()));
  }
  return InvalidFields({{std::string(field), absl::StrCat(Quoted(name), " is not of the form ",
                                                          prefix, "{id}; the id ", kIdRule)}});
}

void CheckId(absl::string_view id, absl::string_view field,
             std::vector<FieldViolation>* violations) {
  if (IsId(id)) return;
  violations->push_back({std::string(field), absl::StrCat(Quoted(id), " ", kIdRule)});
}

void CheckDisplayName(absl::string_view text, absl::string_view field,
                      std::vector<FieldViolation>* violations) {
  const auto characters = data::DecodeUtf8(text);
  if (!characters.ok()) {
    violations->push_back({std::string(field), "is not UTF-8"});
  } else if (characters->size() > kDisplayNameCharactersMax) {
    violations->push_back(
        {std::string(field), absl::StrCat("has ", characters->size(), " characters; at most ",
                                          kDisplayNameCharactersMax, " are allowed")});
  }
}

std::string NewId(absl::string_view prefix) {
  std::random_device random;
  return absl::StrFormat("%s-%08x%02x", prefix, random(), random() & 0xffu);
}

std::string NewUid() {
  std::random_device random;
  std::string uid;
  for (int i = 0; i < 4; ++i) absl::StrAppendFormat(&uid, "%08x", random());
  return uid;
}

absl::StatusOr<int> PageSize(int32_t asked) {
  if (asked < 0) {
    return InvalidFields({{"page_size", absl::StrCat(asked, " is negative; allowed are 0 (means ",
                                                     kPageSizeDefault, ") to ", kPageSizeMax)}});
  }
  if (asked == 0) return kPageSizeDefault;
  return asked < kPageSizeMax ? asked : kPageSizeMax;
}

std::string PageToken(absl::string_view query, const std::vector<int64_t>& position) {
  return absl::WebSafeBase64Escape(
      absl::StrCat(absl::Hex(Fingerprint(query)), ":", absl::StrJoin(position, ":")));
}

absl::StatusOr<std::vector<int64_t>> PagePosition(absl::string_view token, absl::string_view query,
                                                  size_t fields) {
  std::vector<int64_t> position;
  if (token.empty()) return position;
  std::string plain;
  if (!absl::WebSafeBase64Unescape(token, &plain)) return BadToken();
  const std::vector<std::string> parts = absl::StrSplit(plain, ':');
  if (parts.size() != fields + 1 || parts[0] != absl::StrCat(absl::Hex(Fingerprint(query)))) {
    return BadToken();
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(parts[i], &number)) return BadToken();
    position.push_back(number);
  }
  return position;
}

uint64_t Fingerprint(absl::string_view bytes) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : bytes) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 1099511628211u;
  }
  return hash;
}

}  // namespace gradwatch::jobs
