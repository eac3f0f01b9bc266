#include "server/data/csv_reader.h"

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace gradwatch::data {

bool CsvReader::OnlyLineEndsFollow() const {
  return bytes_.find_first_not_of("\r\n", at_) == absl::string_view::npos;
}

bool CsvReader::AtLineEnd() const {
  const absl::string_view rest = bytes_.substr(at_, 2);
  return rest.empty() || rest[0] == '\n' || rest == "\r\n";
}

absl::StatusOr<bool> CsvReader::Next() {
  if (OnlyLineEndsFollow()) return false;
  row_offset_ = at_;
  cell_count_ = 0;
  stored_ = 0;
  for (;;) {
    std::string* cell = &surplus_;
    if (cell_count_ < cells_max_) {
      if (cells_.size() == stored_) cells_.emplace_back();
      cell = &cells_[stored_++];
    }
    RETURN_IF_ERROR(ReadCell(cell));
    ++cell_count_;
    if (at_ >= bytes_.size() || bytes_[at_] != ',') break;
    ++at_;
  }
  if (at_ < bytes_.size() && bytes_[at_] == '\r') ++at_;
  if (at_ < bytes_.size()) ++at_;
  return true;
}

absl::Status CsvReader::ReadCell(std::string* cell) {
  cell->clear();
  cell_offset_ = at_;
  if (at_ < bytes_.size() && bytes_[at_] == '"') return ReadQuoted(cell);
  return ReadPlain(cell);
}

absl::Status CsvReader::ReadPlain(std::string* cell) {
  size_t end = bytes_.find_first_of(",\"\r\n", at_);
  if (end == absl::string_view::npos) end = bytes_.size();
  RETURN_IF_ERROR(Append(bytes_.substr(at_, end - at_), cell));
  at_ = end;
  if (AtLineEnd() || bytes_[at_] == ',') return absl::OkStatus();
  if (bytes_[at_] == '"') {
    return absl::InvalidArgumentError(
        absl::StrCat("quote inside an unquoted cell (byte ", at_, ")"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("carriage return without line feed (byte ", at_, ")"));
}

absl::Status CsvReader::ReadQuoted(std::string* cell) {
  ++at_;
  for (;;) {
    const size_t quote = bytes_.find('"', at_);
    if (quote == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the quote opened at byte ", cell_offset_, " is never closed"));
    }
    RETURN_IF_ERROR(Append(bytes_.substr(at_, quote - at_), cell));
    at_ = quote + 1;
    if (at_ >= bytes_.size() || bytes_[at_] != '"') break;
    RETURN_IF_ERROR(Append("\"", cell));
    ++at_;
  }
  if (AtLineEnd() || bytes_[at_] == ',') return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("text after a closing quote (byte ", at_, ")"));
}

absl::Status CsvReader::Append(absl::string_view text, std::string* cell) const {
  if (static_cast<int64_t>(cell->size() + text.size()) > cell_bytes_max_) {
    return absl::InvalidArgumentError(absl::StrCat("the cell at byte ", cell_offset_,
                                                   " is longer than ", cell_bytes_max_, " bytes"));
  }
  cell->append(text.data(), text.size());
  return absl::OkStatus();
}

}  // namespace gradwatch::data
