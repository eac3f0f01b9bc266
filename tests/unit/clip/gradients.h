#ifndef GRADWATCH_TESTS_UNIT_CLIP_GRADIENTS_H_
#define GRADWATCH_TESTS_UNIT_CLIP_GRADIENTS_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/base/philox.h"
#include "server/clip/policy.h"

namespace gradwatch::clip {

// Owns what ClipContext only shows.
template <typename S>
class Gradients {
 public:
  explicit Gradients(std::vector<std::vector<S>> values) : values_(std::move(values)) {
    for (size_t i = 0; i < values_.size(); ++i) {
      shapes_.push_back({static_cast<int64_t>(values_[i].size())});
      weights_.emplace_back(values_[i].size(), S(0.5));
      names_.push_back("tensor" + std::to_string(i));
    }
    for (size_t i = 0; i < values_.size(); ++i) {
      blocks_.push_back(
          {names_[i], absl::MakeSpan(values_[i]), absl::MakeConstSpan(weights_[i]), shapes_[i]});
    }
  }
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;

  ClipContext<S> context(int64_t step = 0) const { return {blocks_, step}; }
  absl::Span<const Block<S>> blocks() const { return blocks_; }
  const std::vector<std::vector<S>>& values() const { return values_; }

 private:
  std::vector<std::vector<S>> values_;
  std::vector<std::vector<S>> weights_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<std::string> names_;
  std::vector<Block<S>> blocks_;
};

// Normal numbers times 10^exponent in tensors of sizes that are empty, one, odd and long.
template <typename S>
std::vector<std::vector<S>> RandomGradients(uint64_t seed, double exponent) {
  RandomStream random(seed, 1, 0);
  std::vector<std::vector<S>> values;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{17}, size_t{64}, size_t{1003}}) {
    std::vector<S>& tensor = values.emplace_back();
    for (size_t i = 0; i < size; ++i) {
      tensor.push_back(static_cast<S>(random.NextNormal() * std::pow(10.0, exponent)));
    }
  }
  return values;
}

}  // namespace gradwatch::clip

#endif  // GRADWATCH_TESTS_UNIT_CLIP_GRADIENTS_H_
