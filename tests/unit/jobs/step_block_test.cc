#include "server/jobs/step_block.h"

#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/jobs/record_testing.h"

namespace gradwatch::jobs {
namespace {

using Records = std::vector<std::shared_ptr<const StepRecord>>;

PortionLimit NoMoreThan(int steps) { return PortionLimit(steps, 1 << 30); }

// Records as the engine makes them: noise in every number, details of changing length.
Records RandomRecords(int64_t first, int count, unsigned seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> number(0.5, 2.0);
  Records records;
  for (int i = 0; i < count; ++i) {
    v1::StepStats stats;
    stats.set_step(first + i);
    stats.mutable_time()->set_nanos(static_cast<int>(random() % 1'000'000'000));
    stats.set_loss(random() % 10 == 0 ? std::nan("") : number(random));
    stats.set_norm_before(number(random));
    if (random() % 3 > 0) stats.set_norm_after(number(random));
    stats.set_clipped(random() % 2 == 0);
    if (random() % 20 == 0) stats.mutable_evaluation()->set_loss(number(random));
    stats.mutable_growth()->set_growth_factor(number(random));
    for (int t = 0; t < 6; ++t) {
      v1::TensorStats* tensor = stats.add_tensors();
      tensor->set_norm(number(random));
      for (int bin = 0; bin < 16; ++bin) {
        tensor->add_magnitude_counts(static_cast<uint32_t>(random() % 300));
      }
    }
    records.push_back(RecordOf(stats));
  }
  return records;
}

TEST(StepBlockTest, GivesBackEveryRecordAsItWas) {
  for (const int count : {1, 2, 63, 256}) {
    const Records records = RandomRecords(1000, count, static_cast<unsigned>(count));

    const StepBlock block(records);
    const StepRecords unpacked = block.Unpack(1000, NoMoreThan(count));

    EXPECT_EQ(block.first_step(), 1000);
    EXPECT_EQ(block.last_step(), 1000 + count - 1);
    ASSERT_EQ(unpacked.size(), records.size());
    for (size_t i = 0; i < records.size(); ++i) ExpectSameRecord(*unpacked[i], *records[i]);
  }
}

TEST(StepBlockTest, GivesAPart) {
  const StepBlock block(RandomRecords(100, 20, 5));

  EXPECT_EQ(block.Unpack(104, NoMoreThan(3)).size(), 3u);
  EXPECT_EQ(block.Unpack(104, NoMoreThan(3))[2]->step, 106);
  EXPECT_EQ(block.Unpack(118, NoMoreThan(100)).size(), 2u);
}

TEST(StepBlockTest, IsSmallerThanItsRecords) {
  const Records records = RandomRecords(0, 256, 1);
  int64_t bytes = 0;
  for (const auto& record : records) bytes += record->bytes();

  // Although nearly all of it is noise.
  EXPECT_LT(StepBlock(records).bytes(), bytes * 6 / 10);
}

TEST(StepBlockTest, ReadersShareWhatIsUnpackedAsLongAsOneHoldsIt) {
  const StepBlock block(RandomRecords(0, 20, 2));

  StepRecords first = block.Unpack(0, NoMoreThan(20));
  const std::weak_ptr<const StepRecord> held = first.Share(3);
  EXPECT_EQ(block.Unpack(3, NoMoreThan(1))[0], first[3]);
  first = StepRecords();

  EXPECT_TRUE(held.expired());
  EXPECT_EQ(block.Unpack(3, NoMoreThan(1))[0]->step, 3);
}

TEST(StepBlockTest, WiresStandOneBehindTheOther) {
  const StepRecords unpacked = StepBlock(RandomRecords(0, 50, 3)).Unpack(0, NoMoreThan(50));

  for (size_t i = 1; i < unpacked.size(); ++i) {
    const absl::string_view before = unpacked[i - 1]->wire;
    EXPECT_EQ(unpacked[i]->wire.data(), before.data() + before.size());
  }
}

TEST(StepBlockTest, ManyThreadsMayUnpackAtOnce) {
  const Records records = RandomRecords(0, 100, 4);
  const StepBlock block(records);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&block, &records] {
      for (int i = 0; i < 50; ++i)
        ASSERT_EQ(block.Unpack(50, NoMoreThan(7))[0]->wire, records[50]->wire);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace gradwatch::jobs
