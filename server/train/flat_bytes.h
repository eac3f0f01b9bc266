#ifndef GRADWATCH_SERVER_TRAIN_FLAT_BYTES_H_
#define GRADWATCH_SERVER_TRAIN_FLAT_BYTES_H_

#include <bit>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradwatch::train {

// Checkpoints and safetensors hold numbers in little-endian order, which is
// this machine's.
static_assert(std::endian::native == std::endian::little);

template <typename S>
std::string ToBytes(absl::Span<const S> values) {
  if (values.empty()) return std::string();
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(S));
}

// False, and nothing is changed, when the sizes differ.
template <typename S>
bool FromBytes(absl::string_view bytes, absl::Span<S> values) {
  if (bytes.size() != values.size() * sizeof(S)) return false;
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return true;
}

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_FLAT_BYTES_H_
