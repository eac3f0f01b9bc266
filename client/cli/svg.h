#ifndef GRADWATCH_CLIENT_CLI_SVG_H_
#define GRADWATCH_CLIENT_CLI_SVG_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gradwatch::cli {

// Text as HTML and SVG show it, in elements and in quoted attributes: nothing in it is markup, and
// control characters other than line feed and tab become U+FFFD.
std::string EscapeMarkup(absl::string_view text);

// A length in pixels, to a hundredth: "12.5".
std::string Pixels(double value);

struct Point {
  double x = 0;
  double y = 0;
};

enum class Anchor { kStart, kMiddle, kEnd };

// One picture that scales with the width it is given. Looks are CSS classes of the page it stands
// in (html_report.cc). Coordinates must be finite; text is escaped here.
class Svg {
 public:
  // `label` tells those who cannot see it what it shows.
  Svg(double width, double height, absl::string_view label);

  void Line(Point from, Point to, absl::string_view style);
  // `opacity` 0 to 1.
  void Rect(Point corner, double width, double height, absl::string_view style, double opacity = 1);
  // With round ends.
  void Pill(Point corner, double width, double height, absl::string_view style);
  void Dot(Point centre, double radius, absl::string_view style);
  // One line through all points; a single one becomes a dot.
  void Polyline(const std::vector<Point>& points, absl::string_view style);
  void Polygon(const std::vector<Point>& points, absl::string_view style);
  void Text(Point at, Anchor anchor, absl::string_view text, absl::string_view style);
  // Path data in units of `unit` by `unit_height` pixels from `corner` on, filled with a colour.
  void Cells(Point corner, double unit, double unit_height, absl::string_view path,
             absl::string_view color);

  // The element with everything that was drawn.
  std::string ToString() const;

 private:
  std::string head_;
  std::string body_;
};

}  // namespace gradwatch::cli

#endif  // GRADWATCH_CLIENT_CLI_SVG_H_
