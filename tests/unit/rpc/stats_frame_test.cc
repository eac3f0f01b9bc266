#include "server/rpc/stats_frame.h"

#include <gtest/gtest.h>

#include "google/protobuf/util/message_differencer.h"
#include "gradwatch/v1/job.pb.h"
#include "server/jobs/step_block.h"
#include "tests/unit/jobs/record_testing.h"

namespace gradwatch::rpc {
namespace {

using google::protobuf::util::MessageDifferencer;

// A record with `floats` numbers of detail, and the message that it stands for.
std::shared_ptr<const jobs::StepRecord> NewRecord(int64_t step, int floats, v1::StepStats* whole) {
  whole->set_step(step);
  whole->set_loss(0.5);
  for (int i = 0; i < floats; ++i) {
    if (i == 0) whole->add_layers();
    whole->mutable_layers(0)->add_hidden_rms(static_cast<float>(i));
  }
  return jobs::RecordOf(*whole);
}

v1::StreamStatsResponse Parse(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  v1::StreamStatsResponse message;
  EXPECT_TRUE(message.ParseFromString(bytes));
  return message;
}

v1::StreamStatsResponse Parse(StatsFrame* frame) { return Parse(frame->Finish()); }

TEST(StatsFrameTest, IsTheWireFormOfTheMessage) {
  v1::StreamStatsResponse expected;
  StatsFrame frame;
  // Copied, shared, empty details, copied again.
  for (const int floats : {3, 5000, 0, 1}) {
    const int64_t step = expected.steps_size();
    const auto record = NewRecord(step, floats, expected.add_steps());
    frame.AddStep(*record, record, false);
  }
  v1::StreamStatsResponse rest;
  rest.set_dropped_before(7);
  rest.mutable_folded()->set_count(2);
  rest.mutable_final_job()->set_name("jobs/a");
  frame.AddRest(rest);
  expected.MergeFrom(rest);

  EXPECT_EQ(frame.bytes(), expected.ByteSizeLong());
  EXPECT_TRUE(MessageDifferencer::Equals(Parse(&frame), expected));
}

TEST(StatsFrameTest, ScalarsOnlyLeavesTheDetailsOut) {
  v1::StepStats whole;
  StatsFrame frame;

  const auto record = NewRecord(0, 5000, &whole);
  frame.AddStep(*record, record, true);

  whole.clear_layers();
  const v1::StreamStatsResponse message = Parse(&frame);
  ASSERT_EQ(message.steps_size(), 1);
  EXPECT_TRUE(MessageDifferencer::Equals(message.steps(0), whole));
}

TEST(StatsFrameTest, SharesLongRecordsAndKeepsThemAlive) {
  v1::StepStats whole;
  auto record = NewRecord(0, 5000, &whole);
  const auto* const wire = reinterpret_cast<const uint8_t*>(record->wire.data());
  const std::weak_ptr<const jobs::StepRecord> alive = record;
  StatsFrame frame;
  frame.AddStep(*record, record, false);
  record.reset();

  {
    const grpc::ByteBuffer buffer = frame.Finish();
    frame = StatsFrame();
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(buffer.Dump(&slices).ok());
    ASSERT_EQ(slices.size(), 1u);
    EXPECT_EQ(slices[0].begin(), wire);
    EXPECT_FALSE(alive.expired());
  }

  EXPECT_TRUE(alive.expired());
}

TEST(StatsFrameTest, SharesRecordsThatStandTogether) {
  std::vector<std::shared_ptr<const jobs::StepRecord>> records;
  v1::StreamStatsResponse expected;
  for (int64_t step = 0; step < 100; ++step) {
    records.push_back(NewRecord(step, 10, expected.add_steps()));
  }
  const jobs::StepBlock block(records);
  StatsFrame frame;

  const jobs::StepRecords unpacked = block.Unpack(0, jobs::PortionLimit(100, 1 << 20));
  for (size_t i = 0; i < unpacked.size(); ++i) {
    frame.AddStep(*unpacked[i], unpacked.owner(i), false);
  }

  EXPECT_EQ(frame.bytes(), expected.ByteSizeLong());
  const grpc::ByteBuffer buffer = frame.Finish();
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(buffer.Dump(&slices).ok());
  EXPECT_EQ(slices.size(), 1u);
  EXPECT_TRUE(MessageDifferencer::Equals(Parse(buffer), expected));
}

TEST(StatsFrameTest, EmptyFrameIsAnEmptyMessage) {
  StatsFrame frame;

  EXPECT_EQ(Parse(&frame).ByteSizeLong(), 0u);
}

}  // namespace
}  // namespace gradwatch::rpc
