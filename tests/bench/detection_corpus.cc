#include "tests/bench/detection_corpus.h"

#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace gradwatch::bench {
namespace {

using Json = nlohmann::json;

std::set<std::string> NamesOf(const Json& list) { return list.get<std::set<std::string>>(); }

absl::StatusOr<RunFamily> FamilyOf(const Json& json, const Corpus& corpus) {
  RunFamily family;
  family.name = json.at("name");
  family.cause = json.at("cause");
  if (!corpus.causes.contains(family.cause)) {
    return absl::InvalidArgumentError(absl::StrCat("cause: '", family.cause, "' is not described"));
  }
  family.steps = json.at("steps");
  family.lasts = family.steps;
  const auto status =
      google::protobuf::util::JsonStringToMessage(json.at("job").dump(), &family.job);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("job: ", std::string(status.message())));
  }
  if (family.job.has_fault_injection()) {
    family.onset = family.job.fault_injection().first_batch();
    family.lasts = family.job.fault_injection().batches();
  }
  return family;
}

absl::StatusOr<Corpus> CorpusOf(const Json& json) {
  Corpus corpus;
  corpus.seeds = json.at("seeds");
  for (const auto& [name, cause] : json.at("causes").items()) {
    corpus.causes[name] = {NamesOf(cause.at("expected")), NamesOf(cause.at("allowed"))};
  }
  for (const Json& each : json.at("families")) {
    absl::StatusOr<RunFamily> family = FamilyOf(each, corpus);
    if (!family.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("family '", each.value("name", "?"), "': ", family.status().message()));
    }
    corpus.families.push_back(*std::move(family));
  }
  return corpus;
}

}  // namespace

absl::StatusOr<Corpus> ReadCorpus(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  try {
    return CorpusOf(Json::parse(file));
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
}

}  // namespace gradwatch::bench
