#include "client/cli/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/util/time_util.h"

namespace gradwatch::cli {
namespace {

// Bytes that continue a code point.
bool Continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Length of the escape sequence ("\033[...m") that starts here, 0 when none does.
size_t EscapeLength(absl::string_view text) {
  if (text.size() < 2 || text[0] != '\033' || text[1] != '[') return 0;
  const size_t end = text.find('m');
  return end == absl::string_view::npos ? 0 : end + 1;
}

// One value for each column; a column with anything that is not finite becomes that.
std::vector<double> FoldToWidth(const std::vector<double>& values, const ChartStyle& style) {
  const size_t width = std::max<size_t>(style.width, 1);
  if (values.size() <= width) return values;
  std::vector<double> folded;
  for (size_t column = 0; column < width; ++column) {
    const size_t begin = column * values.size() / width;
    const size_t end = (column + 1) * values.size() / width;
    double sum = 0;
    double largest = values[begin];
    for (size_t i = begin; i < end; ++i) {
      sum += values[i];
      if (values[i] > largest || std::isnan(values[i])) largest = values[i];
    }
    folded.push_back(style.keep_max ? largest : sum / static_cast<double>(end - begin));
  }
  return folded;
}

double Height(double value, bool log) {
  if (!log) return value;
  return value > 0 ? std::log10(value) : -std::numeric_limits<double>::infinity();
}

// Filled eighths of each column, 1 to 8 * height; 0 for a value that is not finite.
std::vector<int> Levels(const std::vector<double>& values, const ChartStyle& style) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const double value : values) {
    const double height = Height(value, style.log);
    if (!std::isfinite(value) || !std::isfinite(height)) continue;
    low = std::min(low, height);
    high = std::max(high, height);
  }
  const int top = 8 * static_cast<int>(std::max<size_t>(style.height, 1));
  std::vector<int> levels;
  for (const double value : values) {
    if (!std::isfinite(value)) {
      levels.push_back(0);
      continue;
    }
    const double height = Height(value, style.log);
    // A flat series is drawn at mid height.
    const double share = !std::isfinite(height) ? 0.0
                         : high > low           ? (height - low) / (high - low)
                                                : 0.5;
    levels.push_back(1 + static_cast<int>(std::lround(share * (top - 1))));
  }
  return levels;
}

absl::string_view Block(int eighths, bool unicode) {
  static constexpr std::array<absl::string_view, 9> kBlocks = {" ", "▁", "▂", "▃", "▄",
                                                               "▅", "▆", "▇", "█"};
  static constexpr std::array<absl::string_view, 9> kPlain = {" ", ".", ".", ".", ":",
                                                              ":", ":", "#", "#"};
  const auto index = static_cast<size_t>(std::clamp(eighths, 0, 8));
  return unicode ? kBlocks[index] : kPlain[index];
}

}  // namespace

std::string FormatNumber(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return absl::StrFormat("%.4g", value);
}

std::string FormatShare(double share) {
  if (!std::isfinite(share)) return FormatNumber(share);
  const double percent = 100 * share;
  if (percent == std::round(percent)) return absl::StrFormat("%.0f %%", percent);
  if (percent > 0 && percent < 0.05) return "<0.1 %";
  if (percent < 100 && percent > 99.95) return ">99.9 %";
  return absl::StrFormat("%.1f %%", percent);
}

std::string FormatBytes(int64_t bytes) {
  constexpr std::array<absl::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  const int digits = value < 10 && unit > 0 ? 1 : 0;
  return absl::StrFormat("%.*f %s", digits, value, kUnits[unit]);
}

std::string FormatElapsed(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 9.95) return absl::StrFormat("%.1f s", std::max(seconds, 0.0));
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) return absl::StrCat(whole / 60, " min ", whole % 60, " s");
  if (whole < 86400) return absl::StrCat(whole / 3600, " h ", whole / 60 % 60, " min");
  return absl::StrCat(whole / 86400, " d ", whole / 3600 % 24, " h");
}

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixNanos(google::protobuf::util::TimeUtil::TimestampToNanoseconds(time));
}

size_t DisplayWidth(absl::string_view text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size();) {
    if (const size_t escape = EscapeLength(text.substr(i)); escape > 0) {
      i += escape;
      continue;
    }
    if (!Continues(text[i])) ++width;
    ++i;
  }
  return width;
}

std::string Shorten(absl::string_view text, size_t width, bool unicode) {
  if (DisplayWidth(text) <= width) return std::string(text);
  if (width == 0) return "";
  size_t end = 0;
  for (size_t columns = 0; end < text.size(); ++end) {
    if (!Continues(text[end]) && columns++ == width - 1) break;
  }
  return absl::StrCat(text.substr(0, end), unicode ? "…" : "~");
}

std::string Wrap(absl::string_view text, size_t width, size_t indent) {
  std::string wrapped;
  size_t column = 0;
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    const size_t length = DisplayWidth(word);
    if (column > 0 && column + 1 + length > width) {
      absl::StrAppend(&wrapped, "\n", std::string(indent, ' '));
      column = indent;
    } else if (column > 0) {
      wrapped += ' ';
      ++column;
    }
    absl::StrAppend(&wrapped, word);
    column += length;
  }
  return wrapped;
}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = DisplayWidth(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[c]));
    widths.push_back(width);
  }
  std::string text;
  const auto append = [&](auto cell_at) {
    std::string line;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const std::string& cell = cell_at(c);
      const std::string fill(widths[c] - DisplayWidth(cell), ' ');
      if (c > 0) line += "  ";
      absl::StrAppend(&line, columns_[c].align == Align::kRight ? fill + cell : cell + fill);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  };
  append([&](size_t c) -> const std::string& { return columns_[c].title; });
  for (const auto& row : rows_) append([&](size_t c) -> const std::string& { return row[c]; });
  return text;
}

std::string Sparkline(const std::vector<double>& values, const ChartStyle& style) {
  ChartStyle line = style;
  line.height = 1;
  return values.empty() ? "" : ChartRows(values, line)[0];
}

std::vector<std::string> ChartRows(const std::vector<double>& values, const ChartStyle& style) {
  const std::vector<double> columns = FoldToWidth(values, style);
  const std::vector<int> levels = Levels(columns, style);
  const int height = static_cast<int>(std::max<size_t>(style.height, 1));
  std::vector<std::string> rows;
  for (int row = height - 1; row >= 0; --row) {
    std::string line;
    for (const int level : levels) {
      if (level == 0) {
        absl::StrAppend(&line, row == 0 ? (style.unicode ? "×" : "x") : " ");
      } else {
        absl::StrAppend(&line, Block(level - 8 * row, style.unicode));
      }
    }
    rows.push_back(std::move(line));
  }
  return rows;
}

Extremes FiniteExtremes(const std::vector<double>& values) {
  Extremes extremes{kNaN, kNaN};
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    if (!(extremes.minimum <= value)) extremes.minimum = value;
    if (!(extremes.maximum >= value)) extremes.maximum = value;
  }
  return extremes;
}

}  // namespace gradwatch::cli
