#include "server/rpc/stats_frame.h"

#include <utility>

#include "google/protobuf/io/coded_stream.h"

namespace gradwatch::rpc {
namespace {

using Record = std::shared_ptr<const jobs::StepRecord>;

// Tag of a field with a length before its bytes (wire type 2).
constexpr uint8_t kStepsTag = (v1::StreamStatsResponse::kStepsFieldNumber << 3) | 2;

void AppendVarint(uint32_t value, std::string* out) {
  uint8_t bytes[5];
  const uint8_t* const end =
      google::protobuf::io::CodedOutputStream::WriteVarint32ToArray(value, bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(end - bytes));
}

}  // namespace

void StatsFrame::AddStep(const Record& record, bool scalars_only) {
  const size_t details = scalars_only ? 0 : record->details.size();
  const size_t before = copied_.size();
  copied_.push_back(static_cast<char>(kStepsTag));
  AppendVarint(static_cast<uint32_t>(record->scalars.size() + details), &copied_);
  bytes_ += copied_.size() - before;
  AddPart(record, record->scalars);
  if (!scalars_only) AddPart(record, record->details);
}

void StatsFrame::AddRest(const v1::StreamStatsResponse& rest) {
  bytes_ += rest.ByteSizeLong();
  rest.AppendToString(&copied_);
}

void StatsFrame::AddPart(const Record& record, const std::string& part) {
  bytes_ += part.size();
  if (part.size() < kShareBytesMin) {
    copied_ += part;
    return;
  }
  FlushCopied();
  // gRPC takes a pointer to bytes that it may write in theory; it never does.
  slices_.emplace_back(
      const_cast<char*>(part.data()), part.size(),
      [](void* owner) { delete static_cast<Record*>(owner); }, new Record(record));
}

void StatsFrame::FlushCopied() {
  if (copied_.empty()) return;
  auto* const owned = new std::string(std::move(copied_));
  copied_.clear();
  slices_.emplace_back(
      owned->data(), owned->size(), [](void* owner) { delete static_cast<std::string*>(owner); },
      owned);
}

grpc::ByteBuffer StatsFrame::Finish() {
  FlushCopied();
  return grpc::ByteBuffer(slices_.data(), slices_.size());
}

}  // namespace gradwatch::rpc
