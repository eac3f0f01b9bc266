#include "server/stats/state_bytes.h"

#include <bit>
#include <cstddef>

namespace gradwatch::stats {

void StateWriter::Int(int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<char>(bits >> shift));
}

void StateWriter::Double(double value) { Int(std::bit_cast<int64_t>(value)); }

void StateWriter::Bytes(absl::string_view value) {
  Int(static_cast<int64_t>(value.size()));
  bytes_.append(value.data(), value.size());
}

absl::string_view StateReader::Take(uint64_t size) {
  if (!ok_ || size > rest_.size()) {
    ok_ = false;
    return {};
  }
  const absl::string_view taken = rest_.substr(0, static_cast<size_t>(size));
  rest_.remove_prefix(static_cast<size_t>(size));
  return taken;
}

int64_t StateReader::Int() {
  uint64_t bits = 0;
  int shift = 0;
  for (const char byte : Take(8)) {
    bits |= static_cast<uint64_t>(static_cast<unsigned char>(byte)) << shift;
    shift += 8;
  }
  return static_cast<int64_t>(bits);
}

double StateReader::Double() { return std::bit_cast<double>(Int()); }

absl::string_view StateReader::Bytes() {
  const int64_t size = Int();
  return Take(static_cast<uint64_t>(size));
}

}  // namespace gradwatch::stats
