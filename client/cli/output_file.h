#ifndef GRADWATCH_CLIENT_CLI_OUTPUT_FILE_H_
#define GRADWATCH_CLIENT_CLI_OUTPUT_FILE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradwatch::cli {

// A file that appears under its name only once it is complete: written beside it, flushed to the
// disk, then renamed. Without Commit nothing is left.
class OutputFile {
 public:
  // INVALID_ARGUMENT when the folder cannot be written to or the path is a folder.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // RESOURCE_EXHAUSTED when the disk is full, UNKNOWN for other failures.
  absl::Status Write(absl::string_view bytes);
  absl::Status Commit();

 private:
  OutputFile(std::string path, std::string temporary, int descriptor)
      : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}

  const std::string path_;
  const std::string temporary_;
  int descriptor_;
};

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_OUTPUT_FILE_H_
