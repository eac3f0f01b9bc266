#include "client/cli/csv.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/strings/str_split.h"

namespace gradwatch::cli {
namespace {

std::vector<v1::ParameterInfo> Parameters() {
  std::vector<v1::ParameterInfo> parameters(2);
  parameters[0].set_name("rnn.weight_hh_l0");
  parameters[1].set_name("odd,\"name\"");
  return parameters;
}

TEST(CsvTest, NamesEveryParameter) {
  const std::string header = CsvHeader(Parameters());

  EXPECT_EQ(header.find("step,updates_applied,time,"), 0u);
  EXPECT_NE(header.find(",norm/rnn.weight_hh_l0,\"norm/odd,\"\"name\"\"\",max_abs/"),
            std::string::npos);
  EXPECT_EQ(header.back(), '\n');
}

TEST(CsvTest, LeavesAbsentValuesEmptyAndKeepsBits) {
  v1::StepStats step;
  step.set_step(7);
  step.set_loss(0.1);
  step.set_norm_before(std::numeric_limits<double>::quiet_NaN());
  step.set_skipped(true);
  step.set_gradient_cosine(-0.25);
  step.add_tensors()->set_norm(1.0 / 3);
  step.mutable_tensors(0)->set_max_abs(std::numeric_limits<double>::infinity());
  step.add_tensors();

  const std::string row = CsvRow(step, 2);
  const std::vector<std::string> cells = absl::StrSplit(row, ',');

  // The header of two plain names has as many columns.
  ASSERT_EQ(cells.size(), 26u + 4u);
  EXPECT_EQ(cells[0], "7");
  EXPECT_EQ(cells[2], "");
  EXPECT_EQ(cells[4], "0.1");
  EXPECT_EQ(cells[6], "NaN");
  EXPECT_EQ(cells[7], "");
  EXPECT_EQ(cells[10], "true");
  EXPECT_EQ(cells[23], "-0.25");
  EXPECT_EQ(cells[24], "");
  EXPECT_EQ(cells[26], "0.3333333333333333");
  EXPECT_EQ(cells[28], "Infinity");
}

TEST(CsvTest, HasAColumnForEachTensorAlsoWhenNothingWasMeasured) {
  const std::vector<std::string> cells = absl::StrSplit(CsvRow({}, 3), ',');

  EXPECT_EQ(cells.size(), 26u + 6u);
}

}  // namespace
}  // namespace gradwatch::cli
