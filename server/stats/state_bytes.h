#ifndef GRADWATCH_SERVER_STATS_STATE_BYTES_H_
#define GRADWATCH_SERVER_STATS_STATE_BYTES_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "server/base/export.h"

namespace gradwatch::stats {

// Writes numbers and strings one after the other, little-endian, doubles bit for bit.
class GRADWATCH_ENGINE_API StateWriter {
 public:
  void Double(double value);
  void Int(int64_t value);
  void Bytes(absl::string_view value);  // With its length in front.

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what a StateWriter wrote, in the same order. After the first read past the end every read
// gives zero or nothing, and ok() stays false: check once, at the end.
class GRADWATCH_ENGINE_API StateReader {
 public:
  // `bytes` must outlive the reader and what Bytes() returned.
  explicit StateReader(absl::string_view bytes) : rest_(bytes) {}

  double Double();
  int64_t Int();
  absl::string_view Bytes();

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }
  // For a caller who finds a value that cannot be.
  void Fail() { ok_ = false; }

 private:
  absl::string_view Take(uint64_t size);

  absl::string_view rest_;
  bool ok_ = true;
};

}  // namespace gradwatch::stats

#endif  // GRADWATCH_SERVER_STATS_STATE_BYTES_H_
