#include "server/rpc/stats_frame.h"

#include <utility>

#include "google/protobuf/io/coded_stream.h"

namespace gradwatch::rpc {
namespace {

using Owner = std::shared_ptr<const void>;

// Tag of a field with a length before its bytes (wire type 2).
constexpr uint8_t kStepsTag = (v1::StreamStatsResponse::kStepsFieldNumber << 3) | 2;

void AppendVarint(uint32_t value, std::string* out) {
  uint8_t bytes[5];
  const uint8_t* const end =
      google::protobuf::io::CodedOutputStream::WriteVarint32ToArray(value, bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(end - bytes));
}

}  // namespace

void StatsFrame::AddStep(const jobs::StepRecord& record, const Owner& owner, bool scalars_only) {
  if (scalars_only) return AddScalars(record);
  bytes_ += record.wire.size();
  // Every string ends with a zero byte, so what touches is part of one.
  const bool touches = !run_.empty() && run_.data() + run_.size() == record.wire.data();
  if (touches) {
    run_ = absl::string_view(run_.data(), run_.size() + record.wire.size());
    return;
  }
  FlushRun();
  run_ = record.wire;
  run_owner_ = owner;
}

void StatsFrame::AddScalars(const jobs::StepRecord& record) {
  FlushRun();
  const size_t before = copied_.size();
  copied_.push_back(static_cast<char>(kStepsTag));
  AppendVarint(static_cast<uint32_t>(record.scalars.size()), &copied_);
  copied_.append(record.scalars.data(), record.scalars.size());
  bytes_ += copied_.size() - before;
}

void StatsFrame::AddRest(const v1::StreamStatsResponse& rest) {
  FlushRun();
  bytes_ += rest.ByteSizeLong();
  rest.AppendToString(&copied_);
}

void StatsFrame::FlushRun() {
  if (run_.size() < kShareBytesMin) {
    copied_.append(run_.data(), run_.size());
  } else {
    FlushCopied();
    // gRPC takes a pointer to bytes that it may write in theory; it never does.
    slices_.emplace_back(
        const_cast<char*>(run_.data()), run_.size(),
        [](void* owner) { delete static_cast<Owner*>(owner); }, new Owner(std::move(run_owner_)));
  }
  run_ = {};
  run_owner_.reset();
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
  FlushRun();
  FlushCopied();
  return grpc::ByteBuffer(slices_.data(), slices_.size());
}

}  // namespace gradwatch::rpc
