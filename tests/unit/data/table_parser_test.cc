#include <gtest/gtest.h>

#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/base/philox.h"
#include "server/data/dataset_content.h"

namespace gradwatch::data {
namespace {

using namespace std::string_literals;

std::string RefusalOf(absl::string_view table) {
  const auto content = ParseTable(table);
  EXPECT_EQ(content.status().code(), absl::StatusCode::kInvalidArgument) << table;
  return std::string(content.status().message());
}

const TableColumn& Column(const std::shared_ptr<const DatasetContent>& content,
                          absl::string_view name) {
  return *content->FindColumn(name);
}

// The problem of the only column when `cell` is its third value.
std::string ProblemOf(absl::string_view cell) {
  const auto content = ParseTable(absl::StrCat("x,y\n1,0\n2,0\n", cell, ",0\n"));
  EXPECT_TRUE(content.ok()) << content.status();
  return content.ok() ? (*content)->columns[0].problem : "refused";
}

TEST(ParseTableTest, ReadsColumns) {
  const auto content = ParseTable("a,b,c\n1,2.5,-3e2\n4,5,6\n");

  ASSERT_TRUE(content.ok());
  EXPECT_EQ((*content)->kind, v1::Dataset::KIND_TABLE);
  EXPECT_EQ((*content)->rows, 2);
  ASSERT_EQ((*content)->columns.size(), 3u);
  EXPECT_EQ(Column(*content, "a").values, (std::vector<double>{1, 4}));
  EXPECT_EQ(Column(*content, "b").values, (std::vector<double>{2.5, 5}));
  EXPECT_EQ(Column(*content, "c").values, (std::vector<double>{-300, 6}));
  EXPECT_EQ(Column(*content, "c").minimum, -300.0);
  EXPECT_EQ(Column(*content, "c").maximum, 6.0);
  EXPECT_EQ(Column(*content, "c").mean, -147.0);
  EXPECT_EQ((*content)->FindColumn("d"), nullptr);
}

TEST(ParseTableTest, LineEndsMayBeLfOrCrlfAndMayBeMissingAtTheEnd) {
  for (const char* table : {"a,b\n1,2\n3,4\n", "a,b\n1,2\n3,4", "a,b\r\n1,2\r\n3,4\r\n",
                            "a,b\r\n1,2\r\n3,4", "a,b\n1,2\r\n3,4\n\n\r\n",
                            "\xEF\xBB\xBF"
                            "a,b\n1,2\n3,4\n"}) {
    const auto content = ParseTable(table);

    ASSERT_TRUE(content.ok()) << content.status();
    EXPECT_EQ((*content)->rows, 2);
    EXPECT_EQ(Column(*content, "a").values, (std::vector<double>{1, 3}));
    EXPECT_EQ(Column(*content, "b").values, (std::vector<double>{2, 4}));
  }
}

TEST(ParseTableTest, QuotedCellsMayHoldCommasQuotesAndLineEnds) {
  const auto content = ParseTable(
      "\"a,b\",\"say \"\"c\"\"\",\"two\r\nlines\"\n\"1\",2,\"x\ny\"\r\n3,\"4\",\"\"\"\"");

  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ((*content)->rows, 2);
  EXPECT_EQ(Column(*content, "a,b").values, (std::vector<double>{1, 3}));
  EXPECT_EQ(Column(*content, "say \"c\"").values, (std::vector<double>{2, 4}));
  EXPECT_EQ(Column(*content, "two\r\nlines").problem, "row 1: 'x\\ny'");
}

TEST(ParseTableTest, NumbersAreDecimalAndFinite) {
  const auto content = ParseTable("x\n 1.5 \n+2\n-.5\n3.\n1e-400\n1E3\n\t7\n");
  ASSERT_TRUE(content.ok());
  EXPECT_EQ((*content)->columns[0].values, (std::vector<double>{1.5, 2, -0.5, 3, 0, 1000, 7}));

  EXPECT_EQ(ProblemOf(""), "row 3: ''");
  EXPECT_EQ(ProblemOf(" "), "row 3: ' '");
  EXPECT_EQ(ProblemOf("nan"), "row 3: 'nan'");
  EXPECT_EQ(ProblemOf("inf"), "row 3: 'inf'");
  EXPECT_EQ(ProblemOf("1e999"), "row 3: '1e999'");
  EXPECT_EQ(ProblemOf("0x10"), "row 3: '0x10'");
  EXPECT_EQ(ProblemOf("1.5.2"), "row 3: '1.5.2'");
  EXPECT_EQ(ProblemOf("12 3"), "row 3: '12 3'");
  EXPECT_EQ(ProblemOf("+-1"), "row 3: '+-1'");
  EXPECT_EQ(ProblemOf("+"), "row 3: '+'");
  EXPECT_EQ(ProblemOf("infinity"), "row 3: 'infinity'");
  EXPECT_EQ(ProblemOf("1e"), "row 3: '1e'");
}

TEST(ParseTableTest, KeepsTheFirstProblemOfAColumnAndDropsItsValues) {
  const auto content = ParseTable("a,b\n1,1\n,2\nx,3\n");

  ASSERT_TRUE(content.ok());
  EXPECT_FALSE((*content)->columns[0].numeric());
  EXPECT_EQ((*content)->columns[0].problem, "row 2: ''");
  EXPECT_TRUE((*content)->columns[0].values.empty());
  EXPECT_EQ((*content)->columns[1].values, (std::vector<double>{1, 2, 3}));
}

TEST(ParseTableTest, ALongProblemIsCutAtACharacter) {
  std::string cell(31, 'a');
  cell += "\xC3\xA9 and more";

  EXPECT_EQ(ProblemOf(cell), "row 3: '" + std::string(31, 'a') + "...'");
}

TEST(ParseTableTest, MeanOfHugeValuesIsFinite) {
  const auto content = ParseTable("x\n1e308\n1.5e308\n1.7e308\n");

  ASSERT_TRUE(content.ok());
  EXPECT_DOUBLE_EQ((*content)->columns[0].mean, 1.4e308);
}

TEST(ParseTableTest, RefusesATableWithoutHeaderOrRows) {
  EXPECT_EQ(RefusalOf(""), "no header: the table is empty");
  EXPECT_EQ(RefusalOf("\r\n\n"), "no header: the table is empty");
  EXPECT_EQ(RefusalOf("1,2\n3,4\n"),
            "no header: the first row holds only numbers, it must hold the columns' names");
  EXPECT_EQ(RefusalOf("a,b\n"), "no data rows: the table has a header only");
  EXPECT_EQ(RefusalOf("a,b,a\n1,2,3\n"), "header: columns 1 and 3 have the same name 'a'");
}

TEST(ParseTableTest, RefusesRaggedRowsWithBothCounts) {
  EXPECT_EQ(RefusalOf("a,b\n1,2\n3\n"), "row 2 (byte 8): has 1 cell, the header has 2");
  EXPECT_EQ(RefusalOf("a,b\n1,2,3\n"), "row 1 (byte 4): has 3 cells, the header has 2");
  EXPECT_EQ(RefusalOf("a,b\n1,2\n\n3,4\n"), "row 2 (byte 8): has 1 cell, the header has 2");
  EXPECT_EQ(RefusalOf("a\n" + std::string(5000, ',')),
            "row 1 (byte 2): has 5001 cells, the header has 1");
}

TEST(ParseTableTest, RefusesBrokenQuotesAndLineEnds) {
  EXPECT_EQ(RefusalOf("a,b\n1,\"2\n3,4\n"), "row 1: the quote opened at byte 6 is never closed");
  EXPECT_EQ(RefusalOf("\"a"), "header: the quote opened at byte 0 is never closed");
  EXPECT_EQ(RefusalOf("a,b\n1,2\"\n"), "row 1: quote inside an unquoted cell (byte 7)");
  EXPECT_EQ(RefusalOf("a,b\n\"1\"x,2\n"), "row 1: text after a closing quote (byte 7)");
  EXPECT_EQ(RefusalOf("a,b\r1,2\r"), "header: carriage return without line feed (byte 3)");
}

TEST(ParseTableTest, RefusesBytesThatAreNoText) {
  EXPECT_EQ(RefusalOf("a\n1\0\n"s), "byte 3 is NUL: this is not text");
  EXPECT_EQ(RefusalOf("caf\xE9\n1\n"), "is not UTF-8: byte 3 (0xE9) starts no valid character");
}

TEST(ParseTableTest, BoundsColumnsAndCells) {
  std::string header = "c0", row = "0";
  for (int i = 1; i < 1024; ++i) {
    absl::StrAppend(&header, ",c", i);
    absl::StrAppend(&row, ",", i);
  }
  EXPECT_TRUE(ParseTable(absl::StrCat(header, "\n", row)).ok());
  EXPECT_EQ(RefusalOf(absl::StrCat(header, ",more\n", row, ",1")),
            "header: 1025 columns, at most 1024 are allowed");

  EXPECT_TRUE(ParseTable(absl::StrCat("a\n", std::string(4096, 'x'))).ok());
  EXPECT_EQ(RefusalOf(absl::StrCat("a\n", std::string(4097, 'x'))),
            "row 1: the cell at byte 2 is longer than 4096 bytes");
  EXPECT_EQ(RefusalOf(absl::StrCat("a\n\"", std::string(4097, 'x'), "\"")),
            "row 1: the cell at byte 2 is longer than 4096 bytes");
}

TEST(ParseTableTest, EveryPrefixOfATableIsParsedOrRefused) {
  const std::string table =
      "\xEF\xBB\xBF"
      "\"a \"\"x\"\"\",b\r\n1,\"2\"\r\n\"\xE2\x82\xAC\",3\r\n";
  for (size_t size = 0; size <= table.size(); ++size) {
    const auto content = ParseTable(absl::string_view(table).substr(0, size));

    EXPECT_TRUE(content.ok() || content.status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST(ParseTableTest, RandomBytesAreParsedConsistentlyOrRefused) {
  const std::string pieces[] = {",", "\"", "\r\n",     "\n",   "\r",   "1", "2.5",
                                "-", "x",  "\xC3\xA9", "\xFF", "\"\"", " ", "1e5"};
  RandomStream random(1, 1, 1);
  int parsed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string table = i % 2 == 0 ? "a,b\n" : "";
    for (uint32_t left = random.NextBelow(12); left > 0; --left) {
      table += pieces[random.NextBelow(std::size(pieces))];
    }

    const auto content = ParseTable(table);

    if (!content.ok()) {
      ASSERT_EQ(content.status().code(), absl::StatusCode::kInvalidArgument) << table;
      continue;
    }
    ++parsed;
    ASSERT_GE((*content)->rows, 1);
    for (const TableColumn& column : (*content)->columns) {
      const int64_t expected = column.numeric() ? (*content)->rows : 0;
      ASSERT_EQ(static_cast<int64_t>(column.values.size()), expected) << table;
    }
  }
  EXPECT_GT(parsed, 100);
}

}  // namespace
}  // namespace gradwatch::data
