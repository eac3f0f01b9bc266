#include "server/data/utf8.h"

#include <gtest/gtest.h>

namespace gradwatch::data {
namespace {

using namespace std::string_literals;

TEST(Utf8Test, DecodesEveryLength) {
  const auto points = DecodeUtf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"s);

  ASSERT_TRUE(points.ok());
  EXPECT_EQ(*points, (std::vector<char32_t>{'a', 0xE9, 0x20AC, 0x1F600}));
}

TEST(Utf8Test, EveryCodePointGoesRound) {
  std::string text;
  std::vector<char32_t> expected;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    AppendUtf8(c, &text);
    expected.push_back(c);
  }

  const auto points = DecodeUtf8(text);

  ASSERT_TRUE(points.ok());
  EXPECT_EQ(*points, expected);
  EXPECT_TRUE(CheckUtf8(text).ok());
}

TEST(Utf8Test, RefusesWhatIsNotUtf8WithItsOffset) {
  const std::pair<std::string, std::string> cases[] = {
      {"\x80", "byte 0 (0x80)"},              // A tail without a head.
      {"ab\xFF", "byte 2 (0xFF)"},            // Never valid.
      {"\xC0\x80", "byte 0 (0xC0)"},          // Overlong.
      {"x\xE0\x80\x80", "byte 1 (0xE0)"},     // Overlong.
      {"\xED\xA0\x80", "byte 0 (0xED)"},      // Surrogate.
      {"\xF4\x90\x80\x80", "byte 0 (0xF4)"},  // Above U+10FFFF.
      {"\xF5\x80\x80\x80", "byte 0 (0xF5)"},  // Above U+10FFFF.
      {"abc\xE2\x82", "byte 3 (0xE2)"},       // Ends too early.
      {"\xE2\x28\xA1", "byte 0 (0xE2)"},      // A tail byte that is none.
      {"caf\xE9 au lait", "byte 3 (0xE9)"},   // Latin-1.
  };
  for (const auto& [bytes, where] : cases) {
    const auto points = DecodeUtf8(bytes);

    EXPECT_EQ(points.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(points.status().message(), "is not UTF-8: " + where + " starts no valid character");
    EXPECT_EQ(CheckUtf8(bytes), points.status());
  }
}

TEST(Utf8Test, AppendsTheReplacementForWhatIsNoCodePoint) {
  std::string text;

  AppendUtf8(0xD800, &text);
  AppendUtf8(0x110000, &text);

  EXPECT_EQ(text, "\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace gradwatch::data
