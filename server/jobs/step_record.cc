#include "server/jobs/step_record.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/container/inlined_vector.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "server/base/check.h"

namespace gradwatch::jobs {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using v1::StepStats;

// Allocation, deque slot and reference counts of one record, generously.
constexpr int64_t kRecordOverheadBytes = sizeof(StepRecord) + 64;

// Tag of a field with a length before its bytes (wire type 2).
constexpr char kEntryTag = (v1::StreamStatsResponse::kStepsFieldNumber << 3) | 2;

CodedInputStream InputOf(absl::string_view wire) {
  return CodedInputStream(reinterpret_cast<const uint8_t*>(wire.data()),
                          static_cast<int>(wire.size()));
}

bool IsDetail(uint32_t tag) {
  const int field = WireFormatLite::GetTagFieldNumber(tag);
  return field == StepStats::kTensorsFieldNumber || field == StepStats::kLayersFieldNumber ||
         field == StepStats::kRecurrentFieldNumber || field == StepStats::kProbeFieldNumber ||
         field == StepStats::kLengthsFieldNumber;
}

bool ReadDouble(CodedInputStream* input, double* value) {
  return WireFormatLite::ReadPrimitive<double, WireFormatLite::TYPE_DOUBLE>(input, value);
}

bool ReadFlag(CodedInputStream* input, bool* value) {
  return WireFormatLite::ReadPrimitive<bool, WireFormatLite::TYPE_BOOL>(input, value);
}

bool ReadGrowth(CodedInputStream* input, StepRecord* record) {
  uint32_t length = 0;
  if (!input->ReadVarint32(&length)) return false;
  const auto outer = input->PushLimit(static_cast<int>(length));
  record->growth_factor = 0.0;
  bool ok = true;
  while (const uint32_t tag = ok ? input->ReadTag() : 0) {
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    ok = field == v1::GrowthStats::kGrowthFactorFieldNumber
             ? ReadDouble(input, &record->growth_factor)
             : WireFormatLite::SkipField(input, tag);
  }
  input->PopLimit(outer);
  return ok;
}

bool ReadShadow(CodedInputStream* input, StepRecord* record) {
  uint32_t length = 0;
  if (!input->ReadVarint32(&length)) return false;
  const auto outer = input->PushLimit(static_cast<int>(length));
  bool clipped = false;
  bool ok = true;
  while (const uint32_t tag = ok ? input->ReadTag() : 0) {
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    ok = field == v1::ShadowReport::kClippedFieldNumber ? ReadFlag(input, &clipped)
                                                        : WireFormatLite::SkipField(input, tag);
  }
  input->PopLimit(outer);
  if (clipped) record->shadows_clipped |= static_cast<uint8_t>(1U << record->shadows);
  ++record->shadows;
  return ok;
}

// Passes the top-level field of a StepStats that begins with `tag`, taking what folding needs.
bool TakeField(uint32_t tag, CodedInputStream* input, StepRecord* record) {
  switch (WireFormatLite::GetTagFieldNumber(tag)) {
    case StepStats::kStepFieldNumber:
      return WireFormatLite::ReadPrimitive<int64_t, WireFormatLite::TYPE_INT64>(input,
                                                                                &record->step);
    case StepStats::kLossFieldNumber:
      return ReadDouble(input, &record->loss);
    case StepStats::kNormBeforeFieldNumber:
      return ReadDouble(input, &record->norm_before);
    case StepStats::kNormAfterFieldNumber:
      return ReadDouble(input, &record->norm_after);
    case StepStats::kUpdateRatioFieldNumber:
      return ReadDouble(input, &record->update_ratio);
    case StepStats::kGradientCosineFieldNumber:
      return ReadDouble(input, &record->gradient_cosine);
    case StepStats::kDistanceRatioFieldNumber:
      return ReadDouble(input, &record->distance_ratio);
    case StepStats::kClippedFieldNumber:
      return ReadFlag(input, &record->clipped);
    case StepStats::kSkippedFieldNumber:
      return ReadFlag(input, &record->skipped);
    case StepStats::kGrowthFieldNumber:
      return ReadGrowth(input, record);
    case StepStats::kShadowReportsFieldNumber:
      return ReadShadow(input, record);
    case StepStats::kNonfiniteCountFieldNumber:  // Above 0, or it would not be there.
    case StepStats::kNonfiniteOriginFieldNumber:
      record->nonfinite = true;
      return WireFormatLite::SkipField(input, tag);
    case StepStats::kEvaluationFieldNumber:
      record->evaluated = true;
      return WireFormatLite::SkipField(input, tag);
    case StepStats::kInterventionsFieldNumber:
      record->intervened = true;
      return WireFormatLite::SkipField(input, tag);
    default:
      return WireFormatLite::SkipField(input, tag);
  }
}

// Before the first TakeField, and after the last.
void BeginFields(StepRecord* record) {
  record->norm_after = record->growth_factor = record->update_ratio = record->gradient_cosine =
      record->distance_ratio = std::numeric_limits<double>::quiet_NaN();
}
void EndFields(StepRecord* record) {
  record->nonfinite =
      record->nonfinite || !std::isfinite(record->loss) || !std::isfinite(record->norm_before);
}

// Top-level fields that stand together and are of one kind.
struct Run {
  bool detail;
  size_t begin;
  size_t size;
};
using Runs = absl::InlinedVector<Run, 8>;

Runs TakeFields(const std::string& message, StepRecord* record) {
  Runs runs;
  BeginFields(record);
  CodedInputStream input = InputOf(message);
  size_t begin = 0;
  while (const uint32_t tag = input.ReadTag()) {
    GRADWATCH_CHECK(TakeField(tag, &input, record));
    const auto end = static_cast<size_t>(input.CurrentPosition());
    if (runs.empty() || runs.back().detail != IsDetail(tag)) {
      runs.push_back({IsDetail(tag), begin, 0});
    }
    runs.back().size += end - begin;
    begin = end;
  }
  EndFields(record);
  return runs;
}

constexpr int kFoldedInterventionsMax = 1000;

void FoldValue(double value, v1::Range* range) {
  if (!std::isfinite(value)) return;
  const int64_t count = range->count() + 1;
  range->set_minimum(count == 1 ? value : std::min(range->minimum(), value));
  range->set_maximum(count == 1 ? value : std::max(range->maximum(), value));
  // In parts, so that values near the largest double do not overflow their sum.
  const double share = 1.0 / static_cast<double>(count);
  range->set_mean(range->mean() * (1.0 - share) + value * share);
  range->set_last(value);
  range->set_count(count);
}

void FoldInterventions(const StepRecord& record, v1::FoldedStats* folded) {
  StepStats stats;
  GRADWATCH_CHECK(ParseScalars(record, &stats));
  for (v1::Intervention& intervention : *stats.mutable_interventions()) {
    if (folded->interventions_size() == kFoldedInterventionsMax) return;
    folded->add_interventions()->Swap(&intervention);
  }
}

// Of a quantity that few jobs measure: the range does not exist where they do not.
void FoldOptional(double value, v1::Range* (v1::FoldedStats::*range)(), v1::FoldedStats* folded) {
  if (std::isfinite(value)) FoldValue(value, (folded->*range)());
}

}  // namespace

int64_t StepRecord::bytes() const {
  return kRecordOverheadBytes + static_cast<int64_t>(storage.capacity());
}

std::shared_ptr<const StepRecord> MakeRecord(const StepStats& stats) {
  // Reused, so that a trainer allocates what it keeps and no more.
  thread_local std::string message;
  GRADWATCH_CHECK(stats.SerializeToString(&message));
  auto record = std::make_shared<StepRecord>();
  const Runs runs = TakeFields(message, record.get());

  uint8_t head[1 + 5] = {kEntryTag};
  const uint8_t* const head_end =
      CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(message.size()), head + 1);
  const auto head_size = static_cast<size_t>(head_end - head);
  std::string& storage = record->storage;
  storage.reserve(head_size + message.size());
  storage.append(reinterpret_cast<const char*>(head), head_size);
  for (const Run& run : runs) {
    if (!run.detail) storage.append(message, run.begin, run.size);
  }
  const size_t scalars_end = storage.size();
  for (const Run& run : runs) {
    if (run.detail) storage.append(message, run.begin, run.size);
  }
  record->wire = storage;
  record->scalars = record->wire.substr(head_size, scalars_end - head_size);
  record->details = record->wire.substr(scalars_end);
  return record;
}

void ViewRecord(absl::string_view wire, StepRecord* record) {
  record->wire = wire;
  BeginFields(record);
  CodedInputStream input = InputOf(wire);
  uint32_t length = 0;
  GRADWATCH_CHECK(input.ReadTag() != 0 && input.ReadVarint32(&length));
  const auto begin = static_cast<size_t>(input.CurrentPosition());
  size_t end = begin;
  while (const uint32_t tag = input.ReadTag()) {
    if (IsDetail(tag)) break;  // Details are the rest.
    GRADWATCH_CHECK(TakeField(tag, &input, record));
    end = static_cast<size_t>(input.CurrentPosition());
  }
  EndFields(record);
  record->scalars = wire.substr(begin, end - begin);
  record->details = wire.substr(end);
}

bool ParseScalars(const StepRecord& record, StepStats* stats) {
  return stats->ParseFromArray(record.scalars.data(), static_cast<int>(record.scalars.size()));
}

bool ParseRecord(const StepRecord& record, StepStats* stats) {
  // Details stand right behind the scalars.
  return stats->ParseFromArray(record.scalars.data(),
                               static_cast<int>(record.scalars.size() + record.details.size()));
}

void Fold(const StepRecord& record, v1::FoldedStats* folded) {
  if (folded->count() == 0) folded->set_first_step(record.step);
  folded->set_last_step(record.step);
  folded->set_count(folded->count() + 1);
  FoldValue(record.loss, folded->mutable_loss());
  FoldValue(record.norm_before, folded->mutable_norm_before());
  FoldValue(record.norm_after, folded->mutable_norm_after());
  FoldValue(record.growth_factor, folded->mutable_growth_factor());
  FoldOptional(record.update_ratio, &v1::FoldedStats::mutable_update_ratio, folded);
  FoldOptional(record.gradient_cosine, &v1::FoldedStats::mutable_gradient_cosine, folded);
  FoldOptional(record.distance_ratio, &v1::FoldedStats::mutable_distance_ratio, folded);
  folded->set_clipped_steps(folded->clipped_steps() + (record.clipped ? 1 : 0));
  folded->set_skipped_steps(folded->skipped_steps() + (record.skipped ? 1 : 0));
  folded->set_nonfinite_steps(folded->nonfinite_steps() + (record.nonfinite ? 1 : 0));
  for (int i = 0; i < record.shadows; ++i) {
    if (folded->shadow_clipped_steps_size() == i) folded->add_shadow_clipped_steps(0);
    const int64_t clipped = (record.shadows_clipped >> i) & 1;
    folded->set_shadow_clipped_steps(i, folded->shadow_clipped_steps(i) + clipped);
  }
  if (record.intervened) FoldInterventions(record, folded);
}

}  // namespace gradwatch::jobs
