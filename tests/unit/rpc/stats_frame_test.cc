#include "server/rpc/stats_frame.h"

#include <gtest/gtest.h>

#include "google/protobuf/util/message_differencer.h"
#include "gradwatch/v1/job.pb.h"

namespace gradwatch::rpc {
namespace {

using google::protobuf::util::MessageDifferencer;

// A record with `floats` numbers of detail, and the message that it stands for.
std::shared_ptr<const jobs::StepRecord> NewRecord(int64_t step, int floats, v1::StepStats* whole) {
  v1::StepStats scalars, details;
  scalars.set_step(step);
  scalars.set_loss(0.5);
  for (int i = 0; i < floats; ++i) {
    if (i == 0) details.add_layers();
    details.mutable_layers(0)->add_hidden_rms(static_cast<float>(i));
  }
  auto record = std::make_shared<jobs::StepRecord>();
  record->step = step;
  record->scalars = scalars.SerializeAsString();
  record->details = details.SerializeAsString();
  *whole = scalars;
  whole->MergeFrom(details);
  return record;
}

v1::StreamStatsResponse Parse(StatsFrame* frame) {
  grpc::ByteBuffer buffer = frame->Finish();
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

TEST(StatsFrameTest, IsTheWireFormOfTheMessage) {
  v1::StreamStatsResponse expected;
  StatsFrame frame;
  // Copied, shared, empty details, copied again.
  for (const int floats : {3, 5000, 0, 1}) {
    const int64_t step = expected.steps_size();
    frame.AddStep(NewRecord(step, floats, expected.add_steps()), false);
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

  frame.AddStep(NewRecord(0, 5000, &whole), true);

  whole.clear_layers();
  const v1::StreamStatsResponse message = Parse(&frame);
  ASSERT_EQ(message.steps_size(), 1);
  EXPECT_TRUE(MessageDifferencer::Equals(message.steps(0), whole));
}

TEST(StatsFrameTest, SharesLongPartsAndKeepsThemAlive) {
  v1::StepStats whole;
  auto record = NewRecord(0, 5000, &whole);
  const auto* const details = reinterpret_cast<const uint8_t*>(record->details.data());
  const std::weak_ptr<const jobs::StepRecord> alive = record;
  StatsFrame frame;
  frame.AddStep(record, false);
  record.reset();

  {
    const grpc::ByteBuffer buffer = frame.Finish();
    frame = StatsFrame();
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(buffer.Dump(&slices).ok());
    EXPECT_EQ(slices.back().begin(), details);
    EXPECT_FALSE(alive.expired());
  }

  EXPECT_TRUE(alive.expired());
}

TEST(StatsFrameTest, EmptyFrameIsAnEmptyMessage) {
  StatsFrame frame;

  EXPECT_EQ(Parse(&frame).ByteSizeLong(), 0u);
}

}  // namespace
}  // namespace gradwatch::rpc
