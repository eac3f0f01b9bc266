#include "server/stats/state_bytes.h"

#include <cmath>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace gradwatch::stats {
namespace {

TEST(StateBytes, ReadsBackWhatWasWritten) {
  StateWriter writer;
  writer.Int(-5);
  writer.Double(-0.0);
  writer.Double(std::numeric_limits<double>::quiet_NaN());
  writer.Bytes(absl::string_view("a\0b", 3));
  writer.Bytes("");

  StateReader reader(writer.bytes());

  EXPECT_EQ(reader.Int(), -5);
  EXPECT_TRUE(std::signbit(reader.Double()));
  EXPECT_TRUE(std::isnan(reader.Double()));
  EXPECT_EQ(reader.Bytes(), absl::string_view("a\0b", 3));
  EXPECT_EQ(reader.Bytes(), "");
  EXPECT_TRUE(reader.ok());
  EXPECT_TRUE(reader.at_end());
}

TEST(StateBytes, LittleEndian) {
  StateWriter writer;
  writer.Int(258);

  EXPECT_EQ(writer.bytes(), std::string("\2\1\0\0\0\0\0\0", 8));
}

TEST(StateBytes, ShortInputFailsAndStaysFailed) {
  StateWriter writer;
  writer.Int(3);  // A length that the rest does not have.
  StateReader reader(writer.bytes());

  EXPECT_EQ(reader.Bytes(), "");
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.Int(), 0);
  EXPECT_FALSE(reader.ok());
}

TEST(StateBytes, NegativeLengthFails) {
  StateWriter writer;
  writer.Int(-1);
  StateReader reader(writer.bytes());

  EXPECT_EQ(reader.Bytes(), "");
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace gradwatch::stats
