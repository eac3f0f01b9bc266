#include "client/cli/scale.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace gradwatch::cli {
namespace {

// Axes go no further: differences stay finite, logarithms too.
constexpr double kLargestValue = 1e300;
constexpr double kSmallestPositive = 1e-300;

// The smallest of 1, 2 and 5 times a power of ten that is at least `step`.
double RoundStep(double step) {
  const double power = std::pow(10.0, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

int DigitsBehindPoint(double step) {
  return std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 300);
}

// Labels of multiples of `step`. Very large and very small ones are written with a power of ten.
std::string StepLabel(double value, double step, double largest) {
  if (largest < 1e6 && step > 0.9e-5) return GroupedNumber(value, DigitsBehindPoint(step));
  if (value == 0) return "0";
  const double magnitude = std::floor(std::log10(std::abs(value)) + 1e-9);
  const int digits = static_cast<int>(std::max(0.0, magnitude - std::floor(std::log10(step))));
  return absl::StrFormat("%.*e", std::min(digits, 16), value);
}

std::vector<Tick> RoundTicks(Interval values, int most, bool whole) {
  const double span = values.high - values.low;
  double step = RoundStep(span / std::max(most, 2));
  if (whole) step = std::max(std::round(step), 1.0);
  const auto ticks_of = [&values](double by) {
    return std::floor(values.high / by + 1e-9) - std::ceil(values.low / by - 1e-9) + 1;
  };
  while (ticks_of(step) > most) step = RoundStep(step * 1.5);
  const double largest = std::max(std::abs(values.low), std::abs(values.high));
  std::vector<Tick> ticks;
  const double first = std::ceil(values.low / step - 1e-9);
  for (double i = 0; i < ticks_of(step); ++i) {
    const double value = (first + i) * step;
    ticks.push_back({value, StepLabel(value, step, largest)});
  }
  return ticks;
}

std::string Superscript(int number) {
  static constexpr std::array<absl::string_view, 10> kDigits = {"⁰", "¹", "²", "³", "⁴",
                                                                "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = number < 0 ? "⁻" : "";
  for (const char digit : absl::StrCat(std::abs(number))) {
    absl::StrAppend(&text, kDigits[static_cast<size_t>(digit - '0')]);
  }
  return text;
}

std::string ScaledPower(int factor, int exponent) {
  if (factor == 1) return PowerOfTen(exponent);
  if (exponent < -4 || exponent > 4) return absl::StrCat(factor, "·", PowerOfTen(exponent));
  return GroupedNumber(factor * std::pow(10.0, exponent), std::max(0, -exponent));
}

// Powers of ten, every `stride`th, with the given factors.
std::vector<Tick> PowerTicks(Interval values, int stride, const std::vector<int>& factors) {
  const int first = static_cast<int>(std::floor(std::log10(values.low)));
  const int last = static_cast<int>(std::ceil(std::log10(values.high)));
  std::vector<Tick> ticks;
  for (int exponent = first; exponent <= last; ++exponent) {
    if (exponent % stride != 0) continue;
    for (const int factor : factors) {
      const double value = factor * std::pow(10.0, exponent);
      const bool within = value >= values.low * (1 - 1e-9) && value <= values.high * (1 + 1e-9);
      if (within) ticks.push_back({value, ScaledPower(factor, exponent)});
    }
  }
  return ticks;
}

std::vector<Tick> LogTicks(Interval values, int most) {
  const auto limit = static_cast<size_t>(std::max(most, 2));
  const double decades = std::log10(values.high) - std::log10(values.low);
  std::vector<Tick> ticks;
  for (const std::vector<int>& factors : {std::vector<int>{1, 2, 5}, std::vector<int>{1, 3}}) {
    ticks = decades < 4 ? PowerTicks(values, 1, factors) : std::vector<Tick>();
    if (ticks.size() >= 3 && ticks.size() <= limit) return ticks;
  }
  for (const int stride : {1, 2, 3, 5, 10, 20, 50, 100, 200, 500}) {
    ticks = PowerTicks(values, stride, {1});
    if (ticks.size() <= limit) break;
  }
  // Less than a decade or so: equal steps say more.
  return ticks.size() >= 2 ? ticks : RoundTicks(values, most, false);
}

}  // namespace

Interval SpanOf(const std::vector<double>& values, bool log) {
  double low = kLargestValue;
  double high = -kLargestValue;
  for (const double value : values) {
    if (!std::isfinite(value) || (log && value <= 0)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) return log ? Interval{0.1, 1} : Interval{0, 1};
  constexpr double kRoom = 0.05;
  if (!log) {
    const double room = high > low ? kRoom * (high - low) : std::max(0.1 * std::abs(high), 1e-9);
    return {low >= 0 ? std::max(low - room, 0.0) : low - room, high + room};
  }
  const double decades = std::log10(high) - std::log10(low);
  const double factor = std::pow(10.0, std::max(kRoom * decades, 0.02));
  return {low / factor, high * factor};
}

Scale Scale::Linear(Interval values, double begin, double end) {
  values.low = std::clamp(values.low, -kLargestValue, kLargestValue);
  values.high = std::clamp(values.high, -kLargestValue, kLargestValue);
  if (!(values.high > values.low)) {
    values.low -= std::max(0.5, 1e-6 * std::abs(values.low));
    values.high = values.low + 2 * std::max(0.5, 1e-6 * std::abs(values.low));
  }
  return {values, begin, end, false};
}

Scale Scale::Log(Interval values, double begin, double end) {
  values.low = std::clamp(values.low, kSmallestPositive, kLargestValue);
  values.high = std::clamp(values.high, values.low, kLargestValue);
  if (!(values.high > values.low * (1 + 1e-9))) {
    values.low /= 2;
    values.high *= 2;
  }
  return {values, begin, end, true};
}

double Scale::At(double value) const {
  if (std::isnan(value)) return value;
  const double inside = std::clamp(value, values_.low, values_.high);
  const double share = log_ ? (std::log(inside) - std::log(values_.low)) /
                                  (std::log(values_.high) - std::log(values_.low))
                            : (inside / 2 - values_.low / 2) / (values_.high / 2 - values_.low / 2);
  return begin_ + share * (end_ - begin_);
}

std::vector<Tick> Scale::Ticks(int most, bool whole) const {
  return log_ ? LogTicks(values_, most) : RoundTicks(values_, most, whole);
}

std::string PowerOfTen(int exponent) {
  if (exponent >= -4 && exponent <= 5) {
    return GroupedNumber(std::pow(10.0, exponent), std::max(0, -exponent));
  }
  return absl::StrCat("10", Superscript(exponent));
}

std::string GroupedNumber(double value, int digits) {
  std::string text = absl::StrFormat("%.*f", digits, std::abs(value));
  size_t point = text.find('.');
  if (point == std::string::npos) point = text.size();
  for (size_t at = point; at > 3; at -= 3) text.insert(at - 3, ",");
  const bool is_zero = text.find_first_not_of("0.,") == std::string::npos;
  return value < 0 && !is_zero ? absl::StrCat("−", text) : text;
}

}  // namespace gradwatch::cli
