#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/nn/network_impl.h"

namespace gradwatch::nn {
namespace {

template <typename S>
bool AllFinite(const S* values, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite &= std::abs(values[i]) <= std::numeric_limits<S>::max();
  return finite;
}

}  // namespace

template <typename S>
std::optional<NonFinite> Network<S>::Impl::FirstNonFinite() const {
  using Stage = NonFinite::Stage;
  if (auto found = NonFiniteInput()) return found;
  for (const Layer& layer : layers_) {
    if (auto found = NonFiniteStates(layer)) return found;
  }
  if (auto found = NonFiniteReadout(outputs_, Stage::kReadout, "readout")) return found;
  if (!std::isfinite(loss_)) return NonFinite{Stage::kLoss, "loss", -1, -1};
  if (auto found = NonFiniteReadout(output_gradient_, Stage::kBackward, "readout_gradient")) {
    return found;
  }
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    if (auto found = NonFiniteBackward(*layer)) return found;
  }
  return NonFiniteGradient();
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteInput() const {
  if (config_.input != Input::kFeatures) return std::nullopt;
  const int64_t width = config_.features;
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    if (!AllFinite(inputs_.data() + layout_.first(t) * width, layout_.valid(t) * width)) {
      return NonFinite{NonFinite::Stage::kInput, "input", -1, t};
    }
  }
  return std::nullopt;
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteStates(const Layer& layer) const {
  for (int64_t t = 0; t < layout_.time_steps(); ++t) {
    const int64_t offset = layout_.first(t) * hidden_;
    const int64_t size = layout_.valid(t) * hidden_;
    if (Lstm() && !AllFinite(Positions(layer.c) + offset, size)) {
      return NonFinite{NonFinite::Stage::kHidden, absl::StrCat("c_l", layer.index), layer.index, t};
    }
    if (!AllFinite(Positions(layer.h) + offset, size)) {
      return NonFinite{NonFinite::Stage::kHidden, absl::StrCat("h_l", layer.index), layer.index, t};
    }
  }
  return std::nullopt;
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteReadout(const Buffer<S>& values,
                                                            NonFinite::Stage stage,
                                                            const char* name) const {
  const int64_t outputs = config_.outputs;
  if (LastStep()) {
    if (AllFinite(values.data(), layout_.rows() * outputs)) return std::nullopt;
    return NonFinite{stage, name, -1, -1};
  }
  const int64_t steps = layout_.time_steps();
  const bool falling = stage == NonFinite::Stage::kBackward;
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t t = falling ? steps - 1 - i : i;
    if (!AllFinite(values.data() + layout_.first(t) * outputs, layout_.valid(t) * outputs)) {
      return NonFinite{stage, name, -1, t};
    }
  }
  return std::nullopt;
}

template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteBackward(const Layer& layer) const {
  for (int64_t t = layout_.time_steps() - 1; t >= 0; --t) {
    if (!AllFinite(layer.gates.data() + layout_.first(t) * gate_rows_,
                   layout_.valid(t) * gate_rows_)) {
      return NonFinite{NonFinite::Stage::kBackward, absl::StrCat("gate_gradient_l", layer.index),
                       layer.index, t};
    }
  }
  return std::nullopt;
}

// Read-out first, then the layers from the top, then the embedding.
template <typename S>
std::optional<NonFinite> Network<S>::Impl::NonFiniteGradient() const {
  for (auto parameter = parameters_.rbegin(); parameter != parameters_.rend(); ++parameter) {
    if (!AllFinite(gradients_.data() + parameter->offset, parameter->size)) {
      return NonFinite{NonFinite::Stage::kWeightGradient, parameter->name, parameter->layer, -1};
    }
  }
  return std::nullopt;
}

template std::optional<NonFinite> Network<float>::Impl::FirstNonFinite() const;
template std::optional<NonFinite> Network<double>::Impl::FirstNonFinite() const;

}  // namespace gradwatch::nn
