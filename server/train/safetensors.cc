#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"
#include "server/base/check.h"
#include "server/data/utf8.h"
#include "server/train/flat_bytes.h"
#include "server/train/model_tools.h"

namespace gradwatch::train {
namespace {

using Json = nlohmann::ordered_json;

std::string CellName(v1::Model::Cell cell) {
  std::string name = v1::Model::Cell_Name(cell);
  constexpr size_t kPrefix = sizeof("CELL_") - 1;
  return name.size() > kPrefix ? name.substr(kPrefix) : name;
}

// What changed the run that made these weights, as a JSON list; empty when nothing did.
std::string InterventionsJson(const v1::Checkpoint& checkpoint) {
  if (checkpoint.interventions().empty()) return "";
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::vector<std::string> parts;
  for (const v1::Intervention& intervention : checkpoint.interventions()) {
    GRADWATCH_CHECK(
        google::protobuf::util::MessageToJsonString(intervention, &parts.emplace_back(), options)
            .ok());
  }
  return absl::StrCat("[", absl::StrJoin(parts, ","), "]");
}

// The format allows strings only.
Json Metadata(const v1::Job& job, const v1::Checkpoint& checkpoint) {
  Json metadata = {{"format", "pt"},
                   {"job", job.name()},
                   {"cell", CellName(job.model().cell())},
                   {"step", absl::StrCat(checkpoint.step())}};
  std::string vocabulary;
  for (const uint32_t code_point : job.vocabulary()) {
    data::AppendUtf8(static_cast<char32_t>(code_point), &vocabulary);
  }
  if (!vocabulary.empty()) metadata["vocabulary"] = vocabulary;
  const std::string interventions = InterventionsJson(checkpoint);
  if (!interventions.empty()) metadata["interventions"] = interventions;
  return metadata;
}

}  // namespace

std::string ToSafetensors(const v1::Job& job, const v1::Checkpoint& checkpoint) {
  const bool is_double = checkpoint.precision() == v1::Training::PRECISION_FLOAT64;
  const int64_t scalar_size = is_double ? 8 : 4;
  Json header;
  header["__metadata__"] = Metadata(job, checkpoint);
  int64_t begin = 0;
  for (const v1::ParameterInfo& parameter : checkpoint.parameters()) {
    int64_t end = scalar_size;
    for (const int64_t extent : parameter.shape()) end *= extent;
    end += begin;
    header[parameter.name()] = {
        {"dtype", is_double ? "F64" : "F32"},
        {"shape", Json(std::vector<int64_t>(parameter.shape().begin(), parameter.shape().end()))},
        {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');  // The data begin on a multiple of 8.
  const uint64_t size = text.size();
  return absl::StrCat(ToBytes(absl::MakeConstSpan(&size, 1)), text, checkpoint.weights());
}

}  // namespace gradwatch::train
