#ifndef GRADWATCH_CLIENT_CPP_SHA256_H_
#define GRADWATCH_CLIENT_CPP_SHA256_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradwatch::client {

// 64 lower-case hexadecimal digits.
std::string Sha256(absl::string_view bytes);

struct FileDigest {
  std::string sha256;
  int64_t size_bytes = 0;
};

// Of a regular file, read in pieces. NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (a folder)
// with the path.
absl::StatusOr<FileDigest> DigestFile(const std::string& path);

}  // namespace gradwatch::client

#endif  // GRADWATCH_CLIENT_CPP_SHA256_H_
