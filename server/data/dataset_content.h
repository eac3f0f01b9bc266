#ifndef GRADWATCH_SERVER_DATA_DATASET_CONTENT_H_
#define GRADWATCH_SERVER_DATA_DATASET_CONTENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/dataset.pb.h"
#include "server/base/export.h"

namespace gradwatch::data {

constexpr int64_t kVocabularyMax = 4096;  // Distinct characters of a text.
constexpr int64_t kColumnsMax = 1024;     // Columns of a table.
constexpr int64_t kCellBytesMax = 4096;   // Bytes of one cell, header cells included.

// One column of a table.
struct TableColumn {
  std::string name;
  std::vector<double> values;  // One per row; empty when `problem` is not.
  // The first cell that is not a finite number, as "row 7: ''" (data rows from 1; a long cell is
  // cut); empty for a numeric column.
  std::string problem;
  double minimum = 0.0, maximum = 0.0, mean = 0.0;  // Of a numeric column.

  bool numeric() const { return problem.empty(); }
};

// An uploaded data set, parsed. Immutable once made, so threads may share it.
struct GRADWATCH_ENGINE_API DatasetContent {
  v1::Dataset::Kind kind = v1::Dataset::KIND_UNSPECIFIED;
  int64_t size_bytes = 0;  // As uploaded.

  // Text.
  std::vector<char32_t> vocabulary;  // Distinct code points, ascending; token i is vocabulary[i].
  std::vector<uint16_t> tokens;      // The whole text.

  // Table.
  int64_t rows = 0;  // Data rows.
  std::vector<TableColumn> columns;

  // The token of a code point; -1 when the text does not hold it.
  int32_t TokenOf(char32_t code_point) const;
  // The column of that name; null when there is none.
  const TableColumn* FindColumn(absl::string_view name) const;
  // Bytes that this object holds.
  int64_t memory_bytes() const;
};

// Text in UTF-8; a byte order mark at the start is left out. INVALID_ARGUMENT, with the position:
// empty, not UTF-8, a NUL, fewer than 2 or more than kVocabularyMax distinct characters.
GRADWATCH_ENGINE_API absl::StatusOr<std::shared_ptr<const DatasetContent>> ParseText(
    absl::string_view bytes);

// CSV after RFC 4180 in UTF-8: a header row, cells separated by commas, lines by LF or CRLF, the
// last line end optional, empty lines at the end ignored, a byte order mark at the start ignored.
// A number is decimal, with an optional exponent, and may have blanks around it; infinity and NaN
// are no numbers here. INVALID_ARGUMENT, with the row (data rows from 1) or the byte: not UTF-8, a
// NUL, no header (nothing, or a first row of nothing but numbers), a column name twice, a row with
// too few or too many cells, no data rows, a quote that is never closed or stands inside a cell, a
// lone CR, too many columns, a cell too long.
GRADWATCH_ENGINE_API absl::StatusOr<std::shared_ptr<const DatasetContent>> ParseTable(
    absl::string_view bytes);

// ParseText or ParseTable, as `kind` says. INVALID_ARGUMENT for another kind.
GRADWATCH_ENGINE_API absl::StatusOr<std::shared_ptr<const DatasetContent>> ParseDataset(
    v1::Dataset::Kind kind, absl::string_view bytes);

// Sets what the content knows: kind, size_bytes, characters, vocabulary_size, rows, columns.
GRADWATCH_ENGINE_API void FillDataset(const DatasetContent& content, v1::Dataset* dataset);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_DATASET_CONTENT_H_
