#ifndef GRADWATCH_SERVER_DATA_CSV_READER_H_
#define GRADWATCH_SERVER_DATA_CSV_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradwatch::data {

// Reads CSV after RFC 4180 row by row. Lines end with LF or CRLF; empty lines at the end are no
// rows. Buffers are reused from row to row and bounded by `cells_max` cells of `cell_bytes_max`.
class CsvReader {
 public:
  // Starts at byte `start`. `bytes` must outlive the reader.
  CsvReader(absl::string_view bytes, size_t start, int64_t cells_max, int64_t cell_bytes_max)
      : bytes_(bytes), cells_max_(cells_max), cell_bytes_max_(cell_bytes_max), at_(start) {}

  // Moves to the next row; false at the end. INVALID_ARGUMENT, with byte offsets from 0, for a
  // quote that is not closed or stands inside a cell, text after a closing quote, a lone CR, a
  // cell that is too long.
  absl::StatusOr<bool> Next();

  // Cells of the row, the first `cells_max` of them, unquoted.
  absl::Span<const std::string> cells() const {
    return absl::MakeConstSpan(cells_).subspan(0, stored_);
  }
  // How many cells the row has.
  int64_t cell_count() const { return cell_count_; }
  // Offset of the row's first byte.
  size_t row_offset() const { return row_offset_; }

 private:
  bool OnlyLineEndsFollow() const;
  // Reads one cell up to the comma or line end after it.
  absl::Status ReadCell(std::string* cell);
  absl::Status ReadQuoted(std::string* cell);
  absl::Status ReadPlain(std::string* cell);
  absl::Status Append(absl::string_view text, std::string* cell) const;
  bool AtLineEnd() const;

  const absl::string_view bytes_;
  const int64_t cells_max_;
  const int64_t cell_bytes_max_;
  size_t at_;
  size_t row_offset_ = 0;
  size_t cell_offset_ = 0;
  size_t stored_ = 0;
  int64_t cell_count_ = 0;
  std::vector<std::string> cells_;
  std::string surplus_;  // Takes cells beyond cells_max_.
};

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_CSV_READER_H_
