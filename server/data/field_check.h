#ifndef GRADWATCH_SERVER_DATA_FIELD_CHECK_H_
#define GRADWATCH_SERVER_DATA_FIELD_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/data/dataset_content.h"

namespace gradwatch::data {

// INVALID_ARGUMENT "field: got V, must be LOW to HIGH" unless low <= value <= high; so for NaN.
template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": got ", value, ", must be ", low, " to ", high));
}

// INVALID_ARGUMENT unless `content` is there and of that kind; `name` is for the message.
absl::Status CheckDataset(absl::string_view field, absl::string_view name, v1::Dataset::Kind kind,
                          const DatasetContent* content);

// The columns of a table that a forecast can use, for messages: "'a', 'b' and 3 more".
std::string ColumnList(const DatasetContent& content);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_FIELD_CHECK_H_
