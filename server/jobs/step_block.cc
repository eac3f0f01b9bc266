#include "server/jobs/step_block.h"

#include <zstd.h>

#include <cstring>
#include <map>

#include "server/base/check.h"

namespace gradwatch::jobs {
namespace {

// Fast, and higher levels gain next to nothing: what is left is noise.
constexpr int kLevel = 1;

// Rows of the same length with their places in the block.
using Rows = std::map<uint32_t, std::vector<size_t>>;

Rows GroupByLength(absl::Span<const uint32_t> lengths) {
  Rows rows;
  for (size_t i = 0; i < lengths.size(); ++i) rows[lengths[i]].push_back(i);
  return rows;
}

std::string Compress(const std::string& raw) {
  std::string room(ZSTD_compressBound(raw.size()), '\0');
  const size_t size = ZSTD_compress(room.data(), room.size(), raw.data(), raw.size(), kLevel);
  GRADWATCH_CHECK(ZSTD_isError(size) == 0);
  return std::string(room.data(), size);
}

void Decompress(const std::string& packed, std::string* raw) {
  const size_t size = ZSTD_decompress(raw->data(), raw->size(), packed.data(), packed.size());
  GRADWATCH_CHECK(size == raw->size());
}

}  // namespace

// Owns what its records view.
struct StepBlock::Unpacked {
  std::string wires;
  std::vector<StepRecord> records;
};

StepBlock::StepBlock(absl::Span<const std::shared_ptr<const StepRecord>> records)
    : first_step_(records.front()->step), count_(records.size()) {
  std::vector<uint32_t> lengths;
  for (const auto& record : records) lengths.push_back(static_cast<uint32_t>(record->wire.size()));
  // The lengths, then for each length, for each place in a record, the bytes of all records there.
  raw_bytes_ = count_ * sizeof(uint32_t);
  for (const uint32_t length : lengths) raw_bytes_ += length;
  std::string raw(raw_bytes_, '\0');
  std::memcpy(raw.data(), lengths.data(), count_ * sizeof(uint32_t));
  char* next = raw.data() + count_ * sizeof(uint32_t);
  std::vector<const char*> wires;
  for (const auto& [length, rows] : GroupByLength(lengths)) {
    wires.clear();
    for (const size_t row : rows) wires.push_back(records[row]->wire.data());
    for (size_t place = 0; place < length; ++place) {
      for (const char* const wire : wires) *next++ = wire[place];
    }
  }
  packed_ = Compress(raw);
}

int64_t StepBlock::bytes() const {
  constexpr int64_t kOverheadBytes = sizeof(StepBlock) + 64;
  return kOverheadBytes + static_cast<int64_t>(packed_.capacity());
}

StepRecords StepBlock::Unpack(int64_t step, PortionLimit limit) const {
  const std::shared_ptr<const Unpacked> unpacked = GetUnpacked();
  StepRecords records(unpacked);
  for (auto i = static_cast<size_t>(step - first_step_); i < count_; ++i) {
    if (!limit.Admits(unpacked->records[i])) break;
    records.Add(&unpacked->records[i]);
  }
  return records;
}

std::shared_ptr<const StepBlock::Unpacked> StepBlock::GetUnpacked() const {
  MutexLock lock(&mu_);
  if (auto shared = unpacked_.lock()) return shared;
  std::string raw(raw_bytes_, '\0');
  Decompress(packed_, &raw);
  std::vector<uint32_t> lengths(count_);
  std::memcpy(lengths.data(), raw.data(), count_ * sizeof(uint32_t));

  auto unpacked = std::make_shared<Unpacked>();
  unpacked->wires.resize(raw_bytes_ - count_ * sizeof(uint32_t));
  std::vector<size_t> begins(count_);
  for (size_t i = 1; i < count_; ++i) begins[i] = begins[i - 1] + lengths[i - 1];
  const char* next = raw.data() + count_ * sizeof(uint32_t);
  std::vector<char*> wires_of_rows;
  for (const auto& [length, rows] : GroupByLength(lengths)) {
    wires_of_rows.clear();
    for (const size_t row : rows) wires_of_rows.push_back(unpacked->wires.data() + begins[row]);
    for (size_t place = 0; place < length; ++place) {
      for (char* const wire : wires_of_rows) wire[place] = *next++;
    }
  }
  unpacked->records = std::vector<StepRecord>(count_);
  const absl::string_view wires = unpacked->wires;
  for (size_t i = 0; i < count_; ++i) {
    ViewRecord(wires.substr(begins[i], lengths[i]), &unpacked->records[i]);
  }
  unpacked_ = unpacked;
  return unpacked;
}

}  // namespace gradwatch::jobs
