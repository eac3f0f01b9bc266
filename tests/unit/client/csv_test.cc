#include "client/cli/csv.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace gradwatch::cli {
namespace {

v1::Job JobWithParameters(const std::vector<std::string>& parameters) {
  v1::Job job;
  for (const std::string& name : parameters) job.add_parameters()->set_name(name);
  return job;
}

size_t ColumnsOf(const std::string& line) {
  const std::vector<std::string> cells = absl::StrSplit(line, ',');
  return cells.size();
}

TEST(CsvTest, NamesEveryParameter) {
  const std::string header = CsvHeader(JobWithParameters({"rnn.weight_hh_l0", "odd,\"name\""}));

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
  const v1::Job job = JobWithParameters({"a", "b"});

  const std::string row = CsvRow(step, job);
  const std::vector<std::string> cells = absl::StrSplit(row, ',');

  ASSERT_EQ(cells.size(), 26u + 4u);
  EXPECT_EQ(cells.size(), ColumnsOf(CsvHeader(job)));
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
  const v1::Job job = JobWithParameters({"a", "b", "c"});

  EXPECT_EQ(ColumnsOf(CsvRow({}, job)), 26u + 6u);
  EXPECT_EQ(ColumnsOf(CsvHeader(job)), 26u + 6u);
}

TEST(CsvTest, TellsWhatEachShadowClipWouldHaveDone) {
  v1::Job job = JobWithParameters({"a"});
  job.add_shadow_clips()->mutable_global_norm()->set_max_norm(0.25);
  job.add_shadow_clips()->mutable_value()->set_maximum(0.1);
  v1::StepStats step;
  step.add_shadow_reports()->set_clipped(true);
  step.mutable_shadow_reports(0)->set_coefficient(0.125);
  step.add_shadow_reports();

  const std::string header = CsvHeader(job);
  const std::string row = CsvRow(step, job);

  EXPECT_TRUE(absl::EndsWith(header,
                             ",shadow_clipped/1 norm 0.25,shadow_clipped/2 value ..0.1,"
                             "shadow_coefficient/1 norm 0.25,shadow_coefficient/2 value ..0.1\n"))
      << header;
  EXPECT_TRUE(absl::EndsWith(row, ",true,false,0.125,\n")) << row;
  EXPECT_EQ(ColumnsOf(row), ColumnsOf(header));
  EXPECT_EQ(ColumnsOf(CsvRow({}, job)), ColumnsOf(header));
}

}  // namespace
}  // namespace gradwatch::cli
