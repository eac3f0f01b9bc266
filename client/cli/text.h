#ifndef GRADWATCH_CLIENT_CLI_TEXT_H_
#define GRADWATCH_CLIENT_CLI_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"

// Values as people read them. Pure functions.
namespace gradwatch::cli {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Four significant digits: "0.1934", "1.2e+09", "NaN", "inf", "-inf".
std::string FormatNumber(double value);

// A share of 1 as per cent: "0 %", "12.5 %", "100 %"; never rounded onto 0 or 100 when it is not.
std::string FormatShare(double share);

// "512 B", "1.5 KiB", "3 MiB".
std::string FormatBytes(int64_t bytes);

// "0.8 s", "41 s", "3 min 5 s", "2 h 10 min", "3 d 4 h".
std::string FormatElapsed(absl::Duration duration);

absl::Time FromProto(const google::protobuf::Timestamp& time);

// Terminal columns of UTF-8 text without wide characters; escape sequences of colours count
// nothing.
size_t DisplayWidth(absl::string_view text);

// At most `width` columns, the last one an ellipsis ("~" without Unicode) when something was cut.
std::string Shorten(absl::string_view text, size_t width, bool unicode);

// `text` in lines of at most `width` columns, cut at blanks, each after the first indented.
std::string Wrap(absl::string_view text, size_t width, size_t indent);

// Where a cell's text stands in its column.
enum class Align { kLeft, kRight };

// Rows under headings, two blanks between columns, no blanks at the end of a line.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as there are columns.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  std::string ToString() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// How a series is drawn.
struct ChartStyle {
  size_t width = 60;     // Columns for values; longer series are folded to it.
  size_t height = 4;     // Rows, at least 1.
  bool log = false;      // Logarithmic; needs positive values, others are drawn lowest.
  bool unicode = true;   // Eighth blocks; otherwise "#", ":" and ".".
  bool keep_max = true;  // Folding keeps the largest value of each column, else the mean.
};

// A series as one line of blocks, lowest to highest; a value that is not finite is "x" (with
// Unicode "×"). Empty for an empty series.
std::string Sparkline(const std::vector<double>& values, const ChartStyle& style);

// A series as `height` lines, highest first, without labels.
std::vector<std::string> ChartRows(const std::vector<double>& values, const ChartStyle& style);

// The smallest and the largest finite value; both NaN when there is none.
struct Extremes {
  double minimum;
  double maximum;
};
Extremes FiniteExtremes(const std::vector<double>& values);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_TEXT_H_
