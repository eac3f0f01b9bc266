#include "client/cli/svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradwatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(EscapeMarkupTest, LeavesNoMarkup) {
  EXPECT_EQ(EscapeMarkup("<script>alert('x') && \"y\"</script>"),
            "&lt;script&gt;alert(&#39;x&#39;) &amp;&amp; &quot;y&quot;&lt;/script&gt;");
}

TEST(EscapeMarkupTest, KeepsTextOfAllLanguages) {
  EXPECT_EQ(EscapeMarkup("größer ≥ 1 → 梯度"), "größer ≥ 1 → 梯度");
}

TEST(EscapeMarkupTest, ReplacesControlCharacters) {
  EXPECT_EQ(EscapeMarkup(absl::string_view("a\0b\x1b[31m\x7f\n\t", 11)),
            "a\uFFFDb\uFFFD[31m\uFFFD\n\t");
}

TEST(PixelsTest, AreShort) {
  EXPECT_EQ(Pixels(12), "12");
  EXPECT_EQ(Pixels(12.5), "12.5");
  EXPECT_EQ(Pixels(12.3456), "12.35");
  EXPECT_EQ(Pixels(-0.001), "0");
}

TEST(SvgTest, EscapesWhatItIsGiven) {
  Svg svg(10, 20, "a \"label\"");
  svg.Text({1, 2}, Anchor::kEnd, "1 < 2", "tick");

  const std::string text = svg.ToString();

  EXPECT_THAT(text, HasSubstr("viewBox=\"0 0 10 20\""));
  EXPECT_THAT(text, HasSubstr("aria-label=\"a &quot;label&quot;\""));
  EXPECT_THAT(text, HasSubstr("text-anchor=\"end\">1 &lt; 2</text>"));
  EXPECT_THAT(text, Not(HasSubstr("1 < 2")));
}

TEST(SvgTest, DrawsALineOfOnePointAsADot) {
  Svg svg(10, 10, "");
  svg.Polyline({{5, 5}}, "curve loss");

  EXPECT_THAT(svg.ToString(), HasSubstr("<circle class=\"curve loss point\" cx=\"5\""));
}

}  // namespace
}  // namespace gradwatch::cli
