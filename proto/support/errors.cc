#include "proto/support/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace gradwatch {
namespace {

template <typename Detail>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Detail::descriptor()->full_name());
}

template <typename Detail>
void Attach(const Detail& detail, absl::Status* status) {
  status->SetPayload(TypeUrl<Detail>(), absl::Cord(detail.SerializeAsString()));
}

template <typename Detail>
bool Find(const absl::Status& status, Detail* detail) {
  const auto payload = status.GetPayload(TypeUrl<Detail>());
  return payload.has_value() && detail->ParseFromString(std::string(*payload));
}

}  // namespace

absl::Status InvalidFields(const std::vector<FieldViolation>& violations) {
  constexpr size_t kNamed = 3;
  google::rpc::BadRequest bad;
  std::string message;
  for (size_t i = 0; i < violations.size(); ++i) {
    auto* violation = bad.add_field_violations();
    violation->set_field(violations[i].field);
    violation->set_description(violations[i].description);
    if (i < kNamed) {
      absl::StrAppend(&message, i == 0 ? "" : "; ", violations[i].field, ": ",
                      violations[i].description);
    }
  }
  if (violations.size() > kNamed) {
    absl::StrAppend(&message, "; and ", violations.size() - kNamed, " more");
  }
  absl::Status status =
      ErrorWithReason(absl::StatusCode::kInvalidArgument, message, "INVALID_FIELD",
                      {{"field", violations.empty() ? "" : violations.front().field}});
  Attach(bad, &status);
  return status;
}

absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message,
                             absl::string_view reason,
                             const std::vector<std::pair<std::string, std::string>>& metadata) {
  absl::Status status(code, message);
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain("gradwatch");
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  Attach(info, &status);
  return status;
}

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(delay));
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(delay - absl::Seconds(absl::ToInt64Seconds(delay)))));
  Attach(info, &status);
  return status;
}

std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status) {
  google::rpc::BadRequest bad;
  std::vector<FieldViolation> violations;
  if (!Find(status, &bad)) return violations;
  for (const auto& violation : bad.field_violations()) {
    violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

std::string ReasonOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  return Find(status, &info) ? info.reason() : std::string();
}

}  // namespace gradwatch
