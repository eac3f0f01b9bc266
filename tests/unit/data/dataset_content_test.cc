#include "server/data/dataset_content.h"

#include <gtest/gtest.h>

#include "server/data/utf8.h"

namespace gradwatch::data {
namespace {

using namespace std::string_literals;

std::string RefusalOf(absl::string_view text) {
  const auto content = ParseText(text);
  EXPECT_EQ(content.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(content.status().message());
}

TEST(ParseTextTest, VocabularyIsSortedAndTokensPointIntoIt) {
  const auto content = ParseText(
      "b\xC3\xA9"
      "ab\n");

  ASSERT_TRUE(content.ok());
  EXPECT_EQ((*content)->kind, v1::Dataset::KIND_TEXT);
  EXPECT_EQ((*content)->size_bytes, 6);
  EXPECT_EQ((*content)->vocabulary, (std::vector<char32_t>{'\n', 'a', 'b', 0xE9}));
  EXPECT_EQ((*content)->tokens, (std::vector<uint16_t>{2, 3, 1, 2, 0}));
  EXPECT_EQ((*content)->TokenOf('b'), 2);
  EXPECT_EQ((*content)->TokenOf(0xE9), 3);
  EXPECT_EQ((*content)->TokenOf('c'), -1);
  EXPECT_EQ((*content)->TokenOf(0x1F600), -1);
}

TEST(ParseTextTest, AByteOrderMarkIsNoCharacter) {
  const auto content = ParseText("\xEF\xBB\xBFxyz");

  ASSERT_TRUE(content.ok());
  EXPECT_EQ((*content)->tokens, (std::vector<uint16_t>{0, 1, 2}));
  EXPECT_EQ((*content)->size_bytes, 6);
}

TEST(ParseTextTest, RefusesWithThePosition) {
  EXPECT_EQ(RefusalOf(""), "the text is empty");
  EXPECT_EQ(RefusalOf("\xEF\xBB\xBF"), "the text is empty");
  EXPECT_EQ(RefusalOf("ab\0cd"s), "byte 2 is NUL: this is not text");
  EXPECT_EQ(RefusalOf("abc\xFF"), "is not UTF-8: byte 3 (0xFF) starts no valid character");
  EXPECT_EQ(RefusalOf("\xEF\xBB\xBF"
                      "ab\xE9"),
            "is not UTF-8: byte 5 (0xE9) starts no valid character");
  EXPECT_EQ(RefusalOf("aaaa"),
            "the text has only 1 distinct character, at least 2 are needed to learn anything");
}

TEST(ParseTextTest, BoundsTheVocabulary) {
  std::string text;
  for (char32_t c = 0x4E00; c < 0x4E00 + 4096; ++c) AppendUtf8(c, &text);
  ASSERT_TRUE(ParseText(text).ok());

  text += "!";

  EXPECT_EQ(RefusalOf(text),
            "has more than 4096 distinct characters (at byte 12288), at most that many are "
            "allowed");
}

TEST(ParseDatasetTest, GoesByKind) {
  EXPECT_EQ((*ParseDataset(v1::Dataset::KIND_TEXT, "a,b"))->tokens.size(), 3u);
  EXPECT_EQ((*ParseDataset(v1::Dataset::KIND_TABLE, "a,b\n1,2"))->rows, 1);
  EXPECT_EQ(ParseDataset(v1::Dataset::KIND_UNSPECIFIED, "a,b").status().message(),
            "kind: got 0, must be KIND_TEXT or KIND_TABLE");
}

TEST(FillDatasetTest, Text) {
  v1::Dataset dataset;
  dataset.set_name("datasets/kept");

  FillDataset(**ParseText("abca"), &dataset);

  EXPECT_EQ(dataset.name(), "datasets/kept");
  EXPECT_EQ(dataset.kind(), v1::Dataset::KIND_TEXT);
  EXPECT_EQ(dataset.size_bytes(), 4);
  EXPECT_EQ(dataset.characters(), 4);
  EXPECT_EQ(dataset.vocabulary_size(), 3);
  EXPECT_EQ(dataset.rows(), 0);
  EXPECT_TRUE(dataset.columns().empty());
}

TEST(FillDatasetTest, Table) {
  v1::Dataset dataset;

  FillDataset(**ParseTable("when,x\nmonday,1\ntuesday,4\n"), &dataset);

  EXPECT_EQ(dataset.kind(), v1::Dataset::KIND_TABLE);
  EXPECT_EQ(dataset.characters(), 0);
  EXPECT_EQ(dataset.rows(), 2);
  ASSERT_EQ(dataset.columns_size(), 2);
  EXPECT_EQ(dataset.columns(0).name(), "when");
  EXPECT_FALSE(dataset.columns(0).numeric());
  EXPECT_EQ(dataset.columns(0).problem(), "row 1: 'monday'");
  EXPECT_TRUE(dataset.columns(1).numeric());
  EXPECT_EQ(dataset.columns(1).minimum(), 1.0);
  EXPECT_EQ(dataset.columns(1).maximum(), 4.0);
  EXPECT_EQ(dataset.columns(1).mean(), 2.5);
  EXPECT_EQ(dataset.columns(1).problem(), "");
}

TEST(DatasetContentTest, MemoryCoversWhatItHolds) {
  const auto text = ParseText(std::string(1000, 'a') + "b");
  const auto table = ParseTable("x\n1\n2\n3\n");

  EXPECT_GE((*text)->memory_bytes(), 2002);
  EXPECT_GE((*table)->memory_bytes(), 24);
}

}  // namespace
}  // namespace gradwatch::data
