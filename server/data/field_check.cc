#include "server/data/field_check.h"

namespace gradwatch::data {
namespace {

absl::string_view KindName(v1::Dataset::Kind kind) {
  return kind == v1::Dataset::KIND_TEXT ? "text" : "table";
}

}  // namespace

absl::Status CheckDataset(absl::string_view field, absl::string_view name, v1::Dataset::Kind kind,
                          const DatasetContent* content) {
  if (content == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": got '", name, "', must name an uploaded ", KindName(kind)));
  }
  if (content->kind != kind) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": '", name, "' is a ", KindName(content->kind), ", must be a ", KindName(kind)));
  }
  return absl::OkStatus();
}

std::string ColumnList(const DatasetContent& content) {
  constexpr int kShown = 12;
  std::string list;
  int numeric = 0;
  for (const TableColumn& column : content.columns) {
    if (!column.numeric() || ++numeric > kShown) continue;
    absl::StrAppend(&list, numeric == 1 ? "'" : ", '", column.name, "'");
  }
  if (numeric == 0) return "no numeric column";
  if (numeric > kShown) absl::StrAppend(&list, " and ", numeric - kShown, " more");
  return list;
}

}  // namespace gradwatch::data
