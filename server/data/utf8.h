#ifndef GRADWATCH_SERVER_DATA_UTF8_H_
#define GRADWATCH_SERVER_DATA_UTF8_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/base/export.h"

namespace gradwatch::data {

// The code points of UTF-8 bytes. INVALID_ARGUMENT with the byte offset (from 0) of the first
// sequence that is not UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
GRADWATCH_ENGINE_API absl::StatusOr<std::vector<char32_t>> DecodeUtf8(absl::string_view bytes);

// As DecodeUtf8, without keeping the code points.
GRADWATCH_ENGINE_API absl::Status CheckUtf8(absl::string_view bytes);

// Reads the first code point of `bytes`, which must not be empty. Returns how many bytes it takes,
// or 0 where none is valid.
int DecodeOne(absl::string_view bytes, char32_t* code_point);

// The error for bytes that hold no valid character at `offset`.
absl::Status Utf8Error(absl::string_view bytes, size_t offset);

// Appends the UTF-8 form of `code_point`; U+FFFD for what is no code point.
GRADWATCH_ENGINE_API void AppendUtf8(char32_t code_point, std::string* text);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_UTF8_H_
