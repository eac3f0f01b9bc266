#ifndef GRADWATCH_SERVER_JOBS_NAMES_H_
#define GRADWATCH_SERVER_JOBS_NAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/support/errors.h"

namespace gradwatch::jobs {

constexpr size_t kIdLengthMax = 63;
constexpr size_t kDisplayNameCharactersMax = 128;

// Whether `id` matches [a-z][a-z0-9-]{0,62}.
bool IsId(absl::string_view id);

// `text` for a message: control characters escaped, cut after 80 bytes.
std::string Quoted(absl::string_view text);

// The id of "collection/{id}"; otherwise INVALID_ARGUMENT about `field`.
absl::StatusOr<std::string> IdOf(absl::string_view name, absl::string_view collection,
                                 absl::string_view field);

// Appends a violation unless `id` is one.
void CheckId(absl::string_view id, absl::string_view field,
             std::vector<FieldViolation>* violations);

// Appends a violation unless `text` is UTF-8 of at most kDisplayNameCharactersMax characters.
void CheckDisplayName(absl::string_view text, absl::string_view field,
                      std::vector<FieldViolation>* violations);

// "{prefix}-" and 10 hexadecimal digits, random.
std::string NewId(absl::string_view prefix);
// 32 hexadecimal digits, random.
std::string NewUid();

// --- Pages.
constexpr int kPageSizeDefault = 50;
constexpr int kPageSizeMax = 1000;

// The size in force; INVALID_ARGUMENT when negative.
absl::StatusOr<int> PageSize(int32_t asked);

// A token is opaque to clients: `position` within the list that `query` (the method and all its
// other arguments) selects.
std::string PageToken(absl::string_view query, const std::vector<int64_t>& position);

// The position, of `fields` numbers; empty for an empty token. INVALID_ARGUMENT when it is not a
// token of this query.
absl::StatusOr<std::vector<int64_t>> PagePosition(absl::string_view token, absl::string_view query,
                                                  size_t fields);

// FNV-1a, 64 bits.
uint64_t Fingerprint(absl::string_view bytes);

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_NAMES_H_
