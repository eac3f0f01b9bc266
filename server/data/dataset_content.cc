#include "server/data/dataset_content.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/data/utf8.h"

namespace gradwatch::data {
namespace {

constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

// The distinct code points from byte `start` on, ascending.
absl::StatusOr<std::vector<char32_t>> VocabularyOf(absl::string_view bytes, size_t start) {
  std::vector<bool> seen(0x110000, false);
  int64_t distinct = 0;
  for (size_t at = start; at < bytes.size();) {
    char32_t code_point;
    const int length = DecodeOne(bytes.substr(at), &code_point);
    if (length == 0) return Utf8Error(bytes, at);
    if (code_point == 0) {
      return absl::InvalidArgumentError(absl::StrCat("byte ", at, " is NUL: this is not text"));
    }
    if (!seen[code_point]) {
      seen[code_point] = true;
      if (++distinct > kVocabularyMax) {
        return absl::InvalidArgumentError(absl::StrCat("has more than ", kVocabularyMax,
                                                       " distinct characters (at byte ", at,
                                                       "), at most that many are allowed"));
      }
    }
    at += static_cast<size_t>(length);
  }
  std::vector<char32_t> vocabulary;
  for (char32_t c = 0; c < seen.size(); ++c) {
    if (seen[c]) vocabulary.push_back(c);
  }
  return vocabulary;
}

}  // namespace

int32_t DatasetContent::TokenOf(char32_t code_point) const {
  const auto found = std::lower_bound(vocabulary.begin(), vocabulary.end(), code_point);
  if (found == vocabulary.end() || *found != code_point) return -1;
  return static_cast<int32_t>(found - vocabulary.begin());
}

const TableColumn* DatasetContent::FindColumn(absl::string_view name) const {
  const auto found =
      std::find_if(columns.begin(), columns.end(),
                   [name](const TableColumn& column) { return column.name == name; });
  return found == columns.end() ? nullptr : &*found;
}

int64_t DatasetContent::memory_bytes() const {
  size_t bytes = sizeof(*this) + vocabulary.capacity() * sizeof(char32_t) +
                 tokens.capacity() * sizeof(uint16_t) + columns.capacity() * sizeof(TableColumn);
  for (const TableColumn& column : columns) {
    bytes += column.name.capacity() + column.problem.capacity() +
             column.values.capacity() * sizeof(double);
  }
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<std::shared_ptr<const DatasetContent>> ParseText(absl::string_view bytes) {
  const size_t start = absl::StartsWith(bytes, kByteOrderMark) ? kByteOrderMark.size() : 0;
  if (start == bytes.size()) return absl::InvalidArgumentError("the text is empty");
  auto vocabulary = VocabularyOf(bytes, start);
  if (!vocabulary.ok()) return vocabulary.status();
  if (vocabulary->size() < 2) {
    return absl::InvalidArgumentError(
        "the text has only 1 distinct character, at least 2 are needed to learn anything");
  }

  auto content = std::make_shared<DatasetContent>();
  content->kind = v1::Dataset::KIND_TEXT;
  content->size_bytes = static_cast<int64_t>(bytes.size());
  content->vocabulary = *std::move(vocabulary);
  std::vector<uint16_t> token_of(content->vocabulary.back() + 1);
  for (size_t i = 0; i < content->vocabulary.size(); ++i) {
    token_of[content->vocabulary[i]] = static_cast<uint16_t>(i);
  }
  content->tokens.reserve(bytes.size());
  for (size_t at = start; at < bytes.size();) {
    char32_t code_point = 0;
    at += static_cast<size_t>(DecodeOne(bytes.substr(at), &code_point));
    content->tokens.push_back(token_of[code_point]);
  }
  content->tokens.shrink_to_fit();
  return content;
}

absl::StatusOr<std::shared_ptr<const DatasetContent>> ParseDataset(v1::Dataset::Kind kind,
                                                                   absl::string_view bytes) {
  switch (kind) {
    case v1::Dataset::KIND_TEXT:
      return ParseText(bytes);
    case v1::Dataset::KIND_TABLE:
      return ParseTable(bytes);
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("kind: got ", static_cast<int>(kind), ", must be KIND_TEXT or KIND_TABLE"));
  }
}

void FillDataset(const DatasetContent& content, v1::Dataset* dataset) {
  dataset->set_kind(content.kind);
  dataset->set_size_bytes(content.size_bytes);
  dataset->set_characters(static_cast<int64_t>(content.tokens.size()));
  dataset->set_vocabulary_size(static_cast<int32_t>(content.vocabulary.size()));
  dataset->set_rows(content.rows);
  dataset->clear_columns();
  for (const TableColumn& from : content.columns) {
    v1::Dataset::Column* column = dataset->add_columns();
    column->set_name(from.name);
    column->set_numeric(from.numeric());
    column->set_minimum(from.minimum);
    column->set_maximum(from.maximum);
    column->set_mean(from.mean);
    column->set_problem(from.problem);
  }
}

}  // namespace gradwatch::data
