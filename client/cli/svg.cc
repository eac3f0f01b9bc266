#include "client/cli/svg.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gradwatch::cli {
namespace {

std::string PointList(const std::vector<Point>& points) {
  std::string text;
  for (const Point& point : points) {
    absl::StrAppend(&text, text.empty() ? "" : " ", Pixels(point.x), ",", Pixels(point.y));
  }
  return text;
}

absl::string_view AnchorName(Anchor anchor) {
  if (anchor == Anchor::kMiddle) return "middle";
  return anchor == Anchor::kEnd ? "end" : "start";
}

}  // namespace

std::string EscapeMarkup(absl::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char character : text) {
    switch (character) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(character);
        const bool is_control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
        if (is_control) {
          escaped += "\uFFFD";
        } else {
          escaped += character;
        }
      }
    }
  }
  return escaped;
}

std::string Pixels(double value) {
  std::string text = absl::StrFormat("%.2f", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

Svg::Svg(double width, double height, absl::string_view label)
    : head_(absl::StrCat("<svg viewBox=\"0 0 ", Pixels(width), " ", Pixels(height),
                         "\" role=\"img\" aria-label=\"", EscapeMarkup(label), "\">\n")) {}

void Svg::Line(Point from, Point to, absl::string_view style) {
  absl::StrAppend(&body_, "<line class=\"", style, "\" x1=\"", Pixels(from.x), "\" y1=\"",
                  Pixels(from.y), "\" x2=\"", Pixels(to.x), "\" y2=\"", Pixels(to.y), "\"/>\n");
}

void Svg::Rect(Point corner, double width, double height, absl::string_view style, double opacity) {
  absl::StrAppend(&body_, "<rect class=\"", style, "\" x=\"", Pixels(corner.x), "\" y=\"",
                  Pixels(corner.y), "\" width=\"", Pixels(width), "\" height=\"", Pixels(height),
                  "\"");
  if (opacity < 1) absl::StrAppend(&body_, " opacity=\"", Pixels(opacity), "\"");
  body_ += "/>\n";
}

void Svg::Pill(Point corner, double width, double height, absl::string_view style) {
  absl::StrAppend(&body_, "<rect class=\"", style, "\" x=\"", Pixels(corner.x), "\" y=\"",
                  Pixels(corner.y), "\" width=\"", Pixels(width), "\" height=\"", Pixels(height),
                  "\" rx=\"", Pixels(height / 2), "\"/>\n");
}

void Svg::Dot(Point centre, double radius, absl::string_view style) {
  absl::StrAppend(&body_, "<circle class=\"", style, "\" cx=\"", Pixels(centre.x), "\" cy=\"",
                  Pixels(centre.y), "\" r=\"", Pixels(radius), "\"/>\n");
}

void Svg::Polyline(const std::vector<Point>& points, absl::string_view style) {
  if (points.size() == 1) {
    Dot(points[0], 2.5, absl::StrCat(style, " point"));
    return;
  }
  absl::StrAppend(&body_, "<polyline class=\"", style, "\" points=\"", PointList(points), "\"/>\n");
}

void Svg::Polygon(const std::vector<Point>& points, absl::string_view style) {
  absl::StrAppend(&body_, "<polygon class=\"", style, "\" points=\"", PointList(points), "\"/>\n");
}

void Svg::Text(Point at, Anchor anchor, absl::string_view text, absl::string_view style) {
  absl::StrAppend(&body_, "<text class=\"", style, "\" x=\"", Pixels(at.x), "\" y=\"", Pixels(at.y),
                  "\" text-anchor=\"", AnchorName(anchor), "\">", EscapeMarkup(text), "</text>\n");
}

void Svg::Cells(Point corner, double unit, double unit_height, absl::string_view path,
                absl::string_view color) {
  absl::StrAppend(&body_, "<path shape-rendering=\"crispEdges\" fill=\"", color,
                  "\" transform=\"translate(", Pixels(corner.x), " ", Pixels(corner.y), ") scale(",
                  absl::StrFormat("%.6g %.6g", unit, unit_height), ")\" d=\"", path, "\"/>\n");
}

std::string Svg::ToString() const { return absl::StrCat(head_, body_, "</svg>\n"); }

}  // namespace gradwatch::cli
