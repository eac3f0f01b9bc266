#include "server/jobs/dataset_store.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "openssl/evp.h"
#include "proto/support/errors.h"
#include "proto/support/timestamp.h"
#include "server/base/check.h"
#include "server/base/status.h"
#include "server/jobs/names.h"

namespace gradwatch::jobs {
namespace {

constexpr int64_t kChunkBytesMax = int64_t{1} << 20;
constexpr absl::Duration kRetryDelay = absl::Seconds(5);

std::string Sha256Hex(absl::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  GRADWATCH_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) ==
                  1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

bool IsSha256Hex(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

std::vector<FieldViolation> CheckHeader(const v1::UploadDatasetRequest::Header& header) {
  std::vector<FieldViolation> violations;
  if (!header.dataset_id().empty()) {
    CheckId(header.dataset_id(), "header.dataset_id", &violations);
  }
  if (header.kind() != v1::Dataset::KIND_TEXT && header.kind() != v1::Dataset::KIND_TABLE) {
    violations.push_back({"header.kind", absl::StrCat(static_cast<int>(header.kind()),
                                                      " is not allowed; allowed are KIND_TEXT and "
                                                      "KIND_TABLE")});
  }
  CheckDisplayName(header.display_name(), "header.display_name", &violations);
  if (!IsSha256Hex(header.sha256())) {
    violations.push_back({"header.sha256", absl::StrCat(Quoted(header.sha256()),
                                                        " is not 64 lower-case hexadecimal "
                                                        "digits")});
  }
  if (header.size_bytes() < 1) {
    violations.push_back(
        {"header.size_bytes",
         absl::StrCat(header.size_bytes(), " is not allowed; a data set has at least 1 byte")});
  }
  return violations;
}

absl::Status Exists(absl::string_view id) {
  return ErrorWithReason(
      absl::StatusCode::kAlreadyExists,
      absl::StrCat("datasets/", id, " exists already; choose another dataset_id, or delete it"),
      "DATASET_EXISTS", {{"dataset", absl::StrCat("datasets/", id)}});
}

absl::Status NoSuchDataset(absl::string_view name) {
  return ErrorWithReason(absl::StatusCode::kNotFound, absl::StrCat("there is no ", name),
                         "DATASET_NOT_FOUND", {{"dataset", std::string(name)}});
}

absl::Status Exhausted(absl::string_view message, int64_t limit) {
  return ErrorWithReason(absl::StatusCode::kResourceExhausted, message, "DATASET_LIMIT",
                         {{"limit", absl::StrCat(limit)}});
}

}  // namespace

DatasetStore::DatasetStore(DatasetLimits limits, const Clock* clock)
    : limits_(limits), clock_(clock) {}

absl::StatusOr<std::unique_ptr<DatasetStore::Upload>> DatasetStore::StartUpload(
    const v1::UploadDatasetRequest::Header& header) {
  const std::vector<FieldViolation> violations = CheckHeader(header);
  if (!violations.empty()) return InvalidFields(violations);
  const int64_t size = header.size_bytes();
  if (size > limits_.bytes_max) {
    return Exhausted(absl::StrCat("header.size_bytes: ", size,
                                  " bytes; a data set may have at most ", limits_.bytes_max),
                     limits_.bytes_max);
  }
  MutexLock lock(&mu_);
  if (datasets_.contains(header.dataset_id())) return Exists(header.dataset_id());
  if (uploads_ >= limits_.uploads_max) {
    return WithRetryDelay(Exhausted(absl::StrCat(uploads_, " uploads are under way; at most ",
                                                 limits_.uploads_max, " may be"),
                                    limits_.uploads_max),
                          kRetryDelay);
  }
  if (static_cast<int64_t>(datasets_.size()) >= limits_.datasets_max) {
    return Exhausted(absl::StrCat("the server keeps ", datasets_.size(), " data sets; at most ",
                                  limits_.datasets_max, " are allowed; delete one"),
                     limits_.datasets_max);
  }
  if (size > limits_.total_bytes_max - bytes_held_) {
    return Exhausted(absl::StrCat("the server holds ", bytes_held_, " bytes of data sets; ", size,
                                  " more would pass the limit of ", limits_.total_bytes_max,
                                  "; delete a data set"),
                     limits_.total_bytes_max);
  }
  ++uploads_;
  bytes_held_ += size;
  return std::unique_ptr<Upload>(new Upload(this, header));
}

DatasetStore::Upload::Upload(DatasetStore* store, v1::UploadDatasetRequest::Header header)
    : store_(store), header_(std::move(header)) {}

DatasetStore::Upload::~Upload() {
  MutexLock lock(&store_->mu_);
  --store_->uploads_;
  if (!stored_) store_->bytes_held_ -= header_.size_bytes();
}

absl::Status DatasetStore::Upload::Add(absl::string_view chunk) {
  if (static_cast<int64_t>(chunk.size()) > kChunkBytesMax) {
    return InvalidFields({{"chunk", absl::StrCat("has ", chunk.size(), " bytes; at most ",
                                                 kChunkBytesMax, " are allowed")}});
  }
  const auto total = static_cast<int64_t>(bytes_.size() + chunk.size());
  if (total > header_.size_bytes()) {
    return InvalidFields(
        {{"header.size_bytes", absl::StrCat("announced ", header_.size_bytes(),
                                            " bytes, but at least ", total, " came")}});
  }
  bytes_.append(chunk.data(), chunk.size());
  return absl::OkStatus();
}

absl::StatusOr<v1::Dataset> DatasetStore::Upload::Finish() {
  GRADWATCH_CHECK(!stored_);
  if (static_cast<int64_t>(bytes_.size()) != header_.size_bytes()) {
    return InvalidFields(
        {{"header.size_bytes", absl::StrCat("announced ", header_.size_bytes(), " bytes, but ",
                                            bytes_.size(), " came")}});
  }
  const std::string sha256 = Sha256Hex(bytes_);
  if (sha256 != header_.sha256()) {
    return ErrorWithReason(
        absl::StatusCode::kDataLoss,
        absl::StrCat("header.sha256: announced ", header_.sha256(),
                     ", but the bytes that came have ", sha256, "; upload again"),
        "CHECKSUM_MISMATCH", {{"announced", header_.sha256()}, {"received", sha256}});
  }
  const auto content = data::ParseDataset(header_.kind(), bytes_);
  if (!content.ok()) {
    if (content.status().code() != absl::StatusCode::kInvalidArgument) return content.status();
    return InvalidFields({{"chunk", std::string(content.status().message())}});
  }
  ASSIGN_OR_RETURN(v1::Dataset dataset, store_->Store(header_, *content));
  stored_ = true;
  return dataset;
}

absl::StatusOr<v1::Dataset> DatasetStore::Store(
    const v1::UploadDatasetRequest::Header& header,
    std::shared_ptr<const data::DatasetContent> content) {
  Entry entry;
  data::FillDataset(*content, &entry.dataset);
  entry.dataset.set_kind(header.kind());
  entry.dataset.set_display_name(header.display_name());
  entry.dataset.set_size_bytes(header.size_bytes());
  entry.dataset.set_sha256(header.sha256());
  *entry.dataset.mutable_create_time() = ToTimestamp(clock_->Now());
  entry.content = std::move(content);

  MutexLock lock(&mu_);
  std::string id = header.dataset_id();
  if (datasets_.contains(id)) return Exists(id);
  // Others may have finished since this upload started.
  if (static_cast<int64_t>(datasets_.size()) >= limits_.datasets_max) {
    return Exhausted(absl::StrCat("the server keeps ", datasets_.size(), " data sets; at most ",
                                  limits_.datasets_max, " are allowed; delete one"),
                     limits_.datasets_max);
  }
  while (id.empty() || datasets_.contains(id)) id = NewId("data");
  entry.dataset.set_name(absl::StrCat("datasets/", id));
  entry.number = next_number_++;
  const v1::Dataset described = Describe(entry);
  datasets_.emplace(id, std::move(entry));
  return described;
}

v1::Dataset DatasetStore::Describe(const Entry& entry) {
  v1::Dataset dataset = entry.dataset;
  dataset.set_jobs_using(entry.jobs_using);
  return dataset;
}

absl::StatusOr<v1::Dataset> DatasetStore::Get(absl::string_view name) const {
  ASSIGN_OR_RETURN(const std::string id, IdOf(name, "datasets", "name"));
  MutexLock lock(&mu_);
  const auto found = datasets_.find(id);
  if (found == datasets_.end()) return NoSuchDataset(name);
  return Describe(found->second);
}

absl::StatusOr<v1::ListDatasetsResponse> DatasetStore::List(
    const v1::ListDatasetsRequest& request) const {
  constexpr absl::string_view kQuery = "datasets";
  ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  ASSIGN_OR_RETURN(const std::vector<int64_t> position,
                   PagePosition(request.page_token(), kQuery, 1));

  v1::ListDatasetsResponse response;
  MutexLock lock(&mu_);
  std::vector<const Entry*> entries;
  for (const auto& [id, entry] : datasets_) {
    if (position.empty() || entry.number < position[0]) entries.push_back(&entry);
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry* a, const Entry* b) { return a->number > b->number; });
  const size_t shown = std::min(entries.size(), static_cast<size_t>(size));
  for (size_t i = 0; i < shown; ++i) *response.add_datasets() = Describe(*entries[i]);
  if (shown < entries.size()) {
    response.set_next_page_token(PageToken(kQuery, {entries[shown - 1]->number}));
  }
  return response;
}

absl::Status DatasetStore::Delete(absl::string_view name) {
  ASSIGN_OR_RETURN(const std::string id, IdOf(name, "datasets", "name"));
  // Freed after the lock is released.
  Entry gone;
  MutexLock lock(&mu_);
  const auto found = datasets_.find(id);
  if (found == datasets_.end()) return NoSuchDataset(name);
  if (found->second.jobs_using > 0) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(name, " is used by ", found->second.jobs_using,
                     found->second.jobs_using == 1 ? " job that is" : " jobs that are",
                     " not final; cancel or delete them first"),
        "DATASET_IN_USE",
        {{"dataset", std::string(name)}, {"jobs_using", absl::StrCat(found->second.jobs_using)}});
  }
  gone = std::move(found->second);
  bytes_held_ -= gone.dataset.size_bytes();
  datasets_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const data::DatasetContent>> DatasetStore::Content(
    absl::string_view name) const {
  ASSIGN_OR_RETURN(const std::string id, IdOf(name, "datasets", "name"));
  MutexLock lock(&mu_);
  const auto found = datasets_.find(id);
  if (found == datasets_.end()) return NoSuchDataset(name);
  return found->second.content;
}

absl::Status DatasetStore::AddUse(absl::string_view name) {
  ASSIGN_OR_RETURN(const std::string id, IdOf(name, "datasets", "name"));
  MutexLock lock(&mu_);
  const auto found = datasets_.find(id);
  if (found == datasets_.end()) return NoSuchDataset(name);
  ++found->second.jobs_using;
  return absl::OkStatus();
}

void DatasetStore::DropUse(absl::string_view name) {
  const auto id = IdOf(name, "datasets", "name");
  GRADWATCH_CHECK(id.ok());
  MutexLock lock(&mu_);
  const auto found = datasets_.find(*id);
  GRADWATCH_CHECK(found != datasets_.end() && found->second.jobs_using > 0);
  --found->second.jobs_using;
}

}  // namespace gradwatch::jobs
