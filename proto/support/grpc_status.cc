#include "proto/support/grpc_status.h"

#include <algorithm>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gradwatch {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// The length of the well-formed UTF-8 sequence at the start of `text`; 0 when
// there is none.
size_t SequenceLength(absl::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  const auto second = static_cast<unsigned char>(text[1]);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second >= 0xA0;
  const bool beyond = lead == 0xF4 && second >= 0x90;
  return overlong || surrogate || beyond ? 0 : length;
}

// `text` with '?' for each byte that is not UTF-8.
std::string WellFormed(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) {
      out.push_back('?');
    } else {
      out.append(text.data(), length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

// At most `bytes_max` bytes of `text`, cut between characters.
std::string Bounded(std::string text, size_t bytes_max) {
  constexpr absl::string_view kEllipsis = "...";
  if (text.size() <= bytes_max) return text;
  size_t end = bytes_max - kEllipsis.size();
  while (end > 0 && IsContinuation(text[end])) --end;
  return absl::StrCat(text.substr(0, end), kEllipsis);
}

// Drops the last violation of a packed BadRequest; false when `any` holds none
// to drop.
bool DropLastViolation(google::protobuf::Any* any) {
  google::rpc::BadRequest bad;
  if (!any->Is<google::rpc::BadRequest>() || !any->UnpackTo(&bad)) return false;
  if (bad.field_violations_size() <= 1) return false;
  bad.mutable_field_violations()->RemoveLast();
  any->PackFrom(bad);
  return true;
}

// The longest details go first: ErrorInfo and RetryInfo are short.
void FitInto(size_t bytes_max, google::rpc::Status* proto) {
  std::sort(proto->mutable_details()->begin(), proto->mutable_details()->end(),
            [](const auto& a, const auto& b) { return a.value().size() < b.value().size(); });
  while (proto->ByteSizeLong() > bytes_max && proto->details_size() > 0) {
    bool dropped = false;
    for (auto& any : *proto->mutable_details()) dropped = dropped || DropLastViolation(&any);
    if (!dropped) proto->mutable_details()->RemoveLast();
  }
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  proto.set_message(Bounded(WellFormed(status.message()), kGrpcMessageBytesMax));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& bytes) {
    auto* any = proto.add_details();
    any->set_type_url(std::string(type_url));
    any->set_value(std::string(bytes));
  });
  FitInto(kGrpcDetailsBytesMax, &proto);
  const auto code = static_cast<grpc::StatusCode>(status.code());
  if (proto.details_size() == 0) return grpc::Status(code, proto.message());
  return grpc::Status(code, proto.message(), proto.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = status.error_code();
  const bool known = code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  absl::Status result(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      status.error_message());
  google::rpc::Status proto;
  if (!proto.ParseFromString(status.error_details())) return result;
  for (const auto& any : proto.details()) {
    result.SetPayload(any.type_url(), absl::Cord(any.value()));
  }
  return result;
}

}  // namespace gradwatch
