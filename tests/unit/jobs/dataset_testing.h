#ifndef GRADWATCH_TESTS_UNIT_JOBS_DATASET_TESTING_H_
#define GRADWATCH_TESTS_UNIT_JOBS_DATASET_TESTING_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "openssl/sha.h"
#include "server/jobs/dataset_store.h"

namespace gradwatch::jobs {

inline std::string Sha256HexForTest(absl::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

// A header that fits `bytes`.
inline v1::UploadDatasetRequest::Header HeaderOf(absl::string_view id, v1::Dataset::Kind kind,
                                                 absl::string_view bytes) {
  v1::UploadDatasetRequest::Header header;
  header.set_dataset_id(std::string(id));
  header.set_kind(kind);
  header.set_sha256(Sha256HexForTest(bytes));
  header.set_size_bytes(static_cast<int64_t>(bytes.size()));
  return header;
}

inline absl::StatusOr<v1::Dataset> Send(DatasetStore* store,
                                        const v1::UploadDatasetRequest::Header& header,
                                        absl::string_view bytes) {
  auto upload = store->StartUpload(header);
  if (!upload.ok()) return upload.status();
  constexpr size_t kChunk = 1 << 20;
  for (size_t i = 0; i < bytes.size(); i += kChunk) {
    if (absl::Status status = (*upload)->Add(bytes.substr(i, kChunk)); !status.ok()) return status;
  }
  return (*upload)->Finish();
}

inline absl::StatusOr<v1::Dataset> UploadAll(DatasetStore* store, absl::string_view id,
                                             v1::Dataset::Kind kind, absl::string_view bytes,
                                             absl::string_view sha256 = "") {
  v1::UploadDatasetRequest::Header header = HeaderOf(id, kind, bytes);
  if (!sha256.empty()) header.set_sha256(std::string(sha256));
  return Send(store, header, bytes);
}

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_TESTS_UNIT_JOBS_DATASET_TESTING_H_
