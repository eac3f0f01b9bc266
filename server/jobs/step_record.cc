#include "server/jobs/step_record.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>

#include "google/protobuf/io/coded_stream.h"
#include "server/base/check.h"

namespace gradwatch::jobs {
namespace {

using google::protobuf::io::CodedOutputStream;
using v1::StepStats;

// Its share of a slab, deque slot and reference counts of one record, generously.
constexpr int64_t kRecordOverheadBytes = sizeof(StepRecord) + 64;
// A slab is freed without destroying the records in it.
static_assert(std::is_trivially_destructible_v<StepRecord>);

// Tag of a field with a length before its bytes (wire type 2).
constexpr char kEntryTag = (v1::StreamStatsResponse::kStepsFieldNumber << 3) | 2;

// Reads, field by field, a message that this process has written; the format:
// https://protobuf.dev/programming-guides/encoding. Stays inside the bytes whatever they are. The
// library's own reader takes twice as long, of which history would have the most.
class FieldReader {
 public:
  explicit FieldReader(absl::string_view bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}

  // Goes to the next field; false at the end.
  bool Next() {
    if (at_ == end_) return false;
    const uint64_t tag = ReadVarint();
    number_ = static_cast<int>(tag >> 3);
    type_ = static_cast<int>(tag & 7);
    return true;
  }
  int number() const { return number_; }
  const char* position() const { return at_; }

  // The value of the field, by its type; one of them, once.
  uint64_t ReadVarint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      GRADWATCH_CHECK(at_ < end_);
      const auto byte = static_cast<uint8_t>(*at_++);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }
  double ReadDouble() {
    double value;
    std::memcpy(&value, Take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  absl::string_view ReadBytes() { return Take(ReadVarint()); }
  void Skip() {
    switch (type_) {
      case 0:
        ReadVarint();
        return;
      case 1:
        Take(8);
        return;
      case 2:
        ReadBytes();
        return;
      default:
        GRADWATCH_CHECK(type_ == 5);
        Take(4);
    }
  }

 private:
  absl::string_view Take(uint64_t size) {
    GRADWATCH_CHECK(size <= static_cast<uint64_t>(end_ - at_));
    const absl::string_view taken(at_, size);
    at_ += size;
    return taken;
  }

  const char* at_;
  const char* const end_;
  int number_ = 0;
  int type_ = 0;
};

bool IsDetail(int field) {
  return field == StepStats::kTensorsFieldNumber || field == StepStats::kLayersFieldNumber ||
         field == StepStats::kRecurrentFieldNumber || field == StepStats::kProbeFieldNumber ||
         field == StepStats::kLengthsFieldNumber;
}

void ReadGrowth(FieldReader input, StepRecord* record) {
  record->growth_factor = 0.0;
  while (input.Next()) {
    if (input.number() == v1::GrowthStats::kGrowthFactorFieldNumber) {
      record->growth_factor = input.ReadDouble();
    } else {
      input.Skip();
    }
  }
}

void AddShadow(bool clipped, StepRecord* record) {
  if (clipped) record->shadows_clipped |= static_cast<uint8_t>(1U << record->shadows);
  ++record->shadows;
}

void ReadShadow(FieldReader input, StepRecord* record) {
  bool clipped = false;
  while (input.Next()) {
    if (input.number() == v1::ShadowReport::kClippedFieldNumber) {
      clipped = input.ReadVarint() != 0;
    } else {
      input.Skip();
    }
  }
  AddShadow(clipped, record);
}

// Passes the top-level field of a StepStats that `input` is at, taking what folding needs.
void TakeField(FieldReader* input, StepRecord* record) {
  switch (input->number()) {
    case StepStats::kStepFieldNumber:
      record->step = static_cast<int64_t>(input->ReadVarint());
      return;
    case StepStats::kLossFieldNumber:
      record->loss = input->ReadDouble();
      return;
    case StepStats::kNormBeforeFieldNumber:
      record->norm_before = input->ReadDouble();
      return;
    case StepStats::kNormAfterFieldNumber:
      record->norm_after = input->ReadDouble();
      return;
    case StepStats::kUpdateRatioFieldNumber:
      record->update_ratio = input->ReadDouble();
      return;
    case StepStats::kGradientCosineFieldNumber:
      record->gradient_cosine = input->ReadDouble();
      return;
    case StepStats::kDistanceRatioFieldNumber:
      record->distance_ratio = input->ReadDouble();
      return;
    case StepStats::kClippedFieldNumber:
      record->clipped = input->ReadVarint() != 0;
      return;
    case StepStats::kSkippedFieldNumber:
      record->skipped = input->ReadVarint() != 0;
      return;
    case StepStats::kGrowthFieldNumber:
      return ReadGrowth(FieldReader(input->ReadBytes()), record);
    case StepStats::kShadowReportsFieldNumber:
      return ReadShadow(FieldReader(input->ReadBytes()), record);
    case StepStats::kNonfiniteCountFieldNumber:  // Above 0, or it would not be there.
    case StepStats::kNonfiniteOriginFieldNumber:
      record->nonfinite = true;
      return input->Skip();
    case StepStats::kEvaluationFieldNumber:
      record->evaluated = true;
      return input->Skip();
    case StepStats::kInterventionsFieldNumber:
      record->intervened = true;
      return input->Skip();
    default:
      return input->Skip();
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

// Takes of a message what TakeField takes of its wire.
void TakeScalars(const StepStats& stats, StepRecord* record) {
  BeginFields(record);
  record->step = stats.step();
  record->loss = stats.loss();
  record->norm_before = stats.norm_before();
  if (stats.has_norm_after()) record->norm_after = stats.norm_after();
  if (stats.has_growth()) record->growth_factor = stats.growth().growth_factor();
  if (stats.has_update_ratio()) record->update_ratio = stats.update_ratio();
  if (stats.has_gradient_cosine()) record->gradient_cosine = stats.gradient_cosine();
  if (stats.has_distance_ratio()) record->distance_ratio = stats.distance_ratio();
  record->clipped = stats.clipped();
  record->skipped = stats.skipped();
  record->nonfinite = stats.nonfinite_count() != 0 || stats.has_nonfinite_origin();
  record->evaluated = stats.has_evaluation();
  record->intervened = !stats.interventions().empty();
  for (const v1::ShadowReport& shadow : stats.shadow_reports()) {
    AddShadow(shadow.clipped(), record);
  }
  EndFields(record);
}

// The fields that IsDetail names.
void SwapDetails(StepStats* a, StepStats* b) {
  a->mutable_tensors()->Swap(b->mutable_tensors());
  a->mutable_layers()->Swap(b->mutable_layers());
  a->mutable_recurrent()->Swap(b->mutable_recurrent());
  a->mutable_probe()->Swap(b->mutable_probe());
  a->mutable_lengths()->Swap(b->mutable_lengths());
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
  return kRecordOverheadBytes + static_cast<int64_t>(wire.size());
}

std::shared_ptr<const StepRecord> RecordMaker::Make(StepStats* stats) {
  SwapDetails(stats, &details_);
  const size_t scalars_size = stats->ByteSizeLong();
  const size_t details_size = details_.ByteSizeLong();
  const size_t size = scalars_size + details_size;
  GRADWATCH_CHECK(size <= std::numeric_limits<int32_t>::max());
  const size_t head_size = 1 + CodedOutputStream::VarintSize32(static_cast<uint32_t>(size));
  const std::shared_ptr<StepRecord> record = Room(head_size + size);

  char* const wire = reinterpret_cast<char*>(record.get() + 1);
  auto* const bytes = reinterpret_cast<uint8_t*>(wire);
  bytes[0] = kEntryTag;
  uint8_t* next = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(size), bytes + 1);
  next = stats->SerializeWithCachedSizesToArray(next);
  next = details_.SerializeWithCachedSizesToArray(next);
  GRADWATCH_CHECK(next == bytes + head_size + size);
  record->wire = absl::string_view(wire, head_size + size);
  record->scalars = record->wire.substr(head_size, scalars_size);
  record->details = record->wire.substr(head_size + scalars_size);
  TakeScalars(*stats, record.get());
  SwapDetails(stats, &details_);
  return record;
}

// A new record, and behind it `wire_size` bytes that are not set.
std::shared_ptr<StepRecord> RecordMaker::Room(size_t wire_size) {
  constexpr size_t kAlign = alignof(StepRecord);
  const size_t size = (sizeof(StepRecord) + wire_size + kAlign - 1) / kAlign * kAlign;
  if (size > kSlabBytes / 4) {
    const std::shared_ptr<std::byte[]> own(new std::byte[size]);
    return {own, new (own.get()) StepRecord};
  }
  if (slab_ == nullptr || size > kSlabBytes - used_) {
    slab_.reset(new std::byte[kSlabBytes]);
    used_ = 0;
  }
  std::byte* const at = slab_.get() + used_;
  used_ += size;
  return {slab_, new (at) StepRecord};
}

void ViewRecord(absl::string_view wire, StepRecord* record) {
  record->wire = wire;
  BeginFields(record);
  FieldReader entry(wire);
  GRADWATCH_CHECK(entry.Next());
  const absl::string_view message = entry.ReadBytes();
  FieldReader input(message);
  const char* end = input.position();
  while (input.Next() && !IsDetail(input.number())) {  // Details are the rest.
    TakeField(&input, record);
    end = input.position();
  }
  EndFields(record);
  const auto size = static_cast<size_t>(end - message.data());
  record->scalars = message.substr(0, size);
  record->details = message.substr(size);
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
