#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/status.h"
#include "server/data/csv_reader.h"
#include "server/data/dataset_content.h"
#include "server/data/utf8.h"

namespace gradwatch::data {
namespace {

std::optional<double> ParseNumber(absl::string_view cell) {
  cell = absl::StripAsciiWhitespace(cell);
  // Keeps out hexadecimal digits, infinity and NaN, which from_chars would read.
  if (cell.find_first_not_of("0123456789.eE+-") != absl::string_view::npos) return std::nullopt;
  // from_chars knows no plus sign.
  if (absl::ConsumePrefix(&cell, "+") && !cell.empty() && cell[0] == '-') return std::nullopt;
  double value = 0.0;
  const auto result = absl::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (result.ptr != cell.data() + cell.size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) {
    // Too small is zero, too large is no finite number.
    return std::abs(value) < 1.0 ? std::optional<double>(0.0) : std::nullopt;
  }
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

// A cell as a message shows it: one line, cut at a character.
std::string Quoted(absl::string_view cell) {
  constexpr size_t kShown = 32;
  std::string dots;
  if (cell.size() > kShown) {
    size_t end = kShown;
    while (end > 0 && (static_cast<unsigned char>(cell[end]) & 0xC0) == 0x80) --end;
    cell = cell.substr(0, end);
    dots = "...";
  }
  return absl::StrCat("'", absl::Utf8SafeCEscape(cell), dots, "'");
}

absl::Status CheckBytes(absl::string_view bytes) {
  if (const size_t nul = bytes.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("byte ", nul, " is NUL: this is not text"));
  }
  return CheckUtf8(bytes);
}

// Makes one empty column for each cell of the header.
absl::Status ReadHeader(CsvReader* reader, DatasetContent* content) {
  auto found = reader->Next();
  if (!found.ok()) return Annotate(found.status(), "header");
  if (!*found) return absl::InvalidArgumentError("no header: the table is empty");
  if (reader->cell_count() > kColumnsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "header: ", reader->cell_count(), " columns, at most ", kColumnsMax, " are allowed"));
  }
  if (std::all_of(reader->cells().begin(), reader->cells().end(),
                  [](const std::string& cell) { return ParseNumber(cell).has_value(); })) {
    return absl::InvalidArgumentError(
        "no header: the first row holds only numbers, it must hold the columns' names");
  }
  absl::flat_hash_map<std::string, size_t> places;
  for (size_t i = 0; i < reader->cells().size(); ++i) {
    const std::string& name = reader->cells()[i];
    const auto [place, is_new] = places.emplace(name, i + 1);
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat("header: columns ", place->second, " and ",
                                                     i + 1, " have the same name ", Quoted(name)));
    }
    content->columns.emplace_back().name = name;
  }
  return absl::OkStatus();
}

void AppendRow(absl::Span<const std::string> cells, DatasetContent* content) {
  ++content->rows;
  for (size_t i = 0; i < cells.size(); ++i) {
    TableColumn& column = content->columns[i];
    if (!column.numeric()) continue;
    if (const std::optional<double> value = ParseNumber(cells[i]); value.has_value()) {
      column.values.push_back(*value);
      continue;
    }
    column.problem = absl::StrCat("row ", content->rows, ": ", Quoted(cells[i]));
    column.values = std::vector<double>();
  }
}

void FinishColumn(TableColumn* column) {
  if (!column->numeric()) return;
  column->values.shrink_to_fit();
  const auto [minimum, maximum] = std::minmax_element(column->values.begin(), column->values.end());
  column->minimum = *minimum;
  column->maximum = *maximum;
  // A running mean, so that a sum of large values cannot overflow.
  double count = 0.0;
  for (const double value : column->values) {
    ++count;
    column->mean += value / count - column->mean / count;
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const DatasetContent>> ParseTable(absl::string_view bytes) {
  auto content = std::make_shared<DatasetContent>();
  content->kind = v1::Dataset::KIND_TABLE;
  content->size_bytes = static_cast<int64_t>(bytes.size());
  RETURN_IF_ERROR(CheckBytes(bytes));
  // Skipped, not cut off: offsets in messages count from the start of the file.
  const bool marked = absl::StartsWith(bytes, "\xEF\xBB\xBF");
  CsvReader reader(bytes, marked ? 3 : 0, kColumnsMax, kCellBytesMax);
  RETURN_IF_ERROR(ReadHeader(&reader, content.get()));

  const int64_t expected = static_cast<int64_t>(content->columns.size());
  for (;;) {
    const auto more = reader.Next();
    if (!more.ok()) return Annotate(more.status(), absl::StrCat("row ", content->rows + 1));
    if (!*more) break;
    if (reader.cell_count() != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "row ", content->rows + 1, " (byte ", reader.row_offset(), "): has ", reader.cell_count(),
          reader.cell_count() == 1 ? " cell" : " cells", ", the header has ", expected));
    }
    AppendRow(reader.cells(), content.get());
  }
  if (content->rows == 0) {
    return absl::InvalidArgumentError("no data rows: the table has a header only");
  }
  for (TableColumn& column : content->columns) FinishColumn(&column);
  return content;
}

}  // namespace gradwatch::data
