#ifndef GRADWATCH_SERVER_JOBS_DATASET_STORE_H_
#define GRADWATCH_SERVER_JOBS_DATASET_STORE_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradwatch/v1/dataset.pb.h"
#include "gradwatch/v1/dataset_service.pb.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/data/dataset_content.h"

namespace gradwatch::jobs {

struct DatasetLimits {
  int64_t bytes_max = int64_t{64} << 20;         // One data set.
  int64_t total_bytes_max = int64_t{1} << 30;    // All together, as uploaded, uploads under way too.
  int datasets_max = 1000;
  int uploads_max = 16;                          // Under way at once.
};

// The uploaded data sets, in memory. Thread-safe.
class DatasetStore {
 public:
  DatasetStore(DatasetLimits limits, const Clock* clock);

  // One upload: bytes are bounded by what the header announced, and that by the limits; nothing is
  // kept unless Finish returns OK. One thread at a time; destroying it gives the room back.
  class Upload {
   public:
    ~Upload();
    absl::Status Add(absl::string_view chunk);
    // Checks size and checksum, parses, stores. DATA_LOSS: checksum; INVALID_ARGUMENT: content.
    absl::StatusOr<v1::Dataset> Finish();

   private:
    friend class DatasetStore;
    Upload(DatasetStore* store, v1::UploadDatasetRequest::Header header);
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;
    DatasetStore* const store_;
    const v1::UploadDatasetRequest::Header header_;
    std::string bytes_;
    bool stored_ = false;  // The bytes count as a data set's now.
  };

  // INVALID_ARGUMENT names every bad field of the header; ALREADY_EXISTS; RESOURCE_EXHAUSTED.
  absl::StatusOr<std::unique_ptr<Upload>> StartUpload(
      const v1::UploadDatasetRequest::Header& header);

  absl::StatusOr<v1::Dataset> Get(absl::string_view name) const;
  absl::StatusOr<v1::ListDatasetsResponse> List(const v1::ListDatasetsRequest& request) const;
  // FAILED_PRECONDITION while in use.
  absl::Status Delete(absl::string_view name);

  // The content, for a job; NOT_FOUND. A job that is not final holds it with AddUse and gives it
  // back with DropUse.
  absl::StatusOr<std::shared_ptr<const data::DatasetContent>> Content(absl::string_view name) const;
  absl::Status AddUse(absl::string_view name);
  void DropUse(absl::string_view name);

 private:
  struct Entry {
    v1::Dataset dataset;  // Without jobs_using.
    std::shared_ptr<const data::DatasetContent> content;
    int64_t number = 0;  // Order of creation.
    int jobs_using = 0;
  };

  absl::StatusOr<v1::Dataset> Store(const v1::UploadDatasetRequest::Header& header,
                                    std::shared_ptr<const data::DatasetContent> content);
  static v1::Dataset Describe(const Entry& entry);

  const DatasetLimits limits_;
  const Clock* const clock_;
  // Leaf lock.
  mutable Mutex mu_;
  absl::flat_hash_map<std::string, Entry> datasets_ ABSL_GUARDED_BY(mu_);
  int64_t bytes_held_ ABSL_GUARDED_BY(mu_) = 0;
  int uploads_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t next_number_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace gradwatch::jobs

#endif  // GRADWATCH_SERVER_JOBS_DATASET_STORE_H_
