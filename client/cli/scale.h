#ifndef GRADWATCH_CLIENT_CLI_SCALE_H_
#define GRADWATCH_CLIENT_CLI_SCALE_H_

#include <string>
#include <vector>

// Axes: values onto pixels, and the ticks that people can read them by. Pure functions and values.
namespace gradwatch::cli {

struct Interval {
  double low = 0;
  double high = 1;
};

// What an axis of these values spans. Not finite values, and on a logarithmic axis those that are
// not above 0, do not count; a little room stays at both ends, none below 0 where nothing is.
// Without any value it is 0.1 to 1 (logarithmic) or 0 to 1.
Interval SpanOf(const std::vector<double>& values, bool log);

struct Tick {
  double value = 0;
  std::string label;
};

// One axis. Copies are cheap.
class Scale {
 public:
  // `values.low` falls on the pixel `begin`, `values.high` on `end`, which may be smaller. An empty
  // interval is widened; on a logarithmic axis values start above 0, else it is made so.
  static Scale Linear(Interval values, double begin, double end);
  static Scale Log(Interval values, double begin, double end);

  // The pixel of a value; beyond the ends, that of the end. NaN for NaN.
  double At(double value) const;

  // Round values within the interval in rising order, at most `most` of them (2 or more), with
  // labels that all differ. `whole`: whole numbers only.
  std::vector<Tick> Ticks(int most, bool whole = false) const;

  Interval values() const { return values_; }
  bool log() const { return log_; }

 private:
  Scale(Interval values, double begin, double end, bool log)
      : values_(values), begin_(begin), end_(end), log_(log) {}

  Interval values_;
  double begin_;
  double end_;
  bool log_;
};

// 10 to the `exponent` as people write it: "0.01", "1,000", "10⁻⁹".
std::string PowerOfTen(int exponent);

// "12,345" with `digits` behind the point.
std::string GroupedNumber(double value, int digits);

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_SCALE_H_
