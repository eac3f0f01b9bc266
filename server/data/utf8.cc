#include "server/data/utf8.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status.h"

namespace gradwatch::data {

int DecodeOne(absl::string_view bytes, char32_t* code_point) {
  const auto byte = [&bytes](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    *code_point = first;
    return 1;
  }
  // Length, and the smallest code point that needs it, by the leading bits.
  const int length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (first < 0xC2 || first > 0xF4 || bytes.size() < static_cast<size_t>(length)) return 0;
  char32_t value = first & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    const unsigned char next = byte(static_cast<size_t>(i));
    if ((next & 0xC0) != 0x80) return 0;
    value = value << 6 | (next & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (value < kSmallest[length] || value > 0x10FFFF || surrogate) return 0;
  *code_point = value;
  return length;
}

absl::Status Utf8Error(absl::string_view bytes, size_t offset) {
  return absl::InvalidArgumentError(
      absl::StrCat("is not UTF-8: byte ", offset, " (",
                   absl::StrFormat("0x%02X", static_cast<unsigned char>(bytes[offset])),
                   ") starts no valid character"));
}

absl::StatusOr<std::vector<char32_t>> DecodeUtf8(absl::string_view bytes) {
  std::vector<char32_t> code_points;
  for (size_t at = 0; at < bytes.size();) {
    char32_t code_point;
    const int length = DecodeOne(bytes.substr(at), &code_point);
    if (length == 0) return Utf8Error(bytes, at);
    code_points.push_back(code_point);
    at += static_cast<size_t>(length);
  }
  return code_points;
}

absl::Status CheckUtf8(absl::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    char32_t code_point;
    const int length = DecodeOne(bytes.substr(at), &code_point);
    if (length == 0) return Utf8Error(bytes, at);
    at += static_cast<size_t>(length);
  }
  return absl::OkStatus();
}

void AppendUtf8(char32_t code_point, std::string* text) {
  const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  if (code_point > 0x10FFFF || surrogate) code_point = 0xFFFD;
  const auto append = [text](char32_t byte) { text->push_back(static_cast<char>(byte)); };
  const auto append_tail = [&append, code_point](int shift) {
    append(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
    append_tail(0);
  } else if (code_point < 0x10000) {
    append(0xE0 | code_point >> 12);
    append_tail(6);
    append_tail(0);
  } else {
    append(0xF0 | code_point >> 18);
    append_tail(12);
    append_tail(6);
    append_tail(0);
  }
}

}  // namespace gradwatch::data
