#include "server/jobs/step_record.h"

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/unit/jobs/record_testing.h"

namespace gradwatch::jobs {
namespace {

v1::StepStats StatsOf(int64_t step) {
  v1::StepStats stats;
  stats.set_step(step);
  stats.set_loss(1.0 + static_cast<double>(step));
  stats.set_norm_before(10.0 + static_cast<double>(step));
  return stats;
}

TEST(StepRecordTest, ScalarsAndDetailsTogetherMakeTheWholeRecord) {
  v1::StepStats stats = StatsOf(7);
  stats.add_tensors()->set_norm(2.0);
  stats.add_tensors()->set_norm(3.0);
  stats.add_layers()->add_hidden_rms(0.5f);
  stats.add_recurrent()->add_sigma_max(1.5);
  stats.add_probe()->add_lag_profile(0.5f);
  stats.add_lengths()->set_loss(0.5);
  stats.mutable_noise()->set_noise_scale(8.5);
  stats.mutable_growth()->set_growth_factor(0.9);
  stats.mutable_evaluation()->set_loss(0.25);

  const auto record = RecordOf(stats);

  v1::StepStats scalars, whole;
  ASSERT_TRUE(ParseScalars(*record, &scalars));
  ASSERT_TRUE(whole.ParseFromString(absl::StrCat(record->scalars, record->details)));
  EXPECT_EQ(whole.SerializeAsString(), stats.SerializeAsString());
  EXPECT_EQ(scalars.tensors_size(), 0);
  EXPECT_EQ(scalars.layers_size(), 0);
  EXPECT_EQ(scalars.recurrent_size(), 0);
  EXPECT_EQ(scalars.probe_size(), 0);
  EXPECT_EQ(scalars.lengths_size(), 0);
  EXPECT_EQ(scalars.noise().noise_scale(), 8.5);
  EXPECT_EQ(scalars.growth().growth_factor(), 0.9);
  EXPECT_EQ(scalars.evaluation().loss(), 0.25);
  EXPECT_TRUE(record->evaluated);
  EXPECT_EQ(record->growth_factor, 0.9);
  EXPECT_TRUE(std::isnan(record->norm_after));
  EXPECT_FALSE(record->nonfinite);
  v1::StreamStatsResponse response;
  ASSERT_TRUE(response.ParseFromString(std::string(record->wire)));
  ASSERT_EQ(response.steps_size(), 1);
  EXPECT_EQ(response.steps(0).SerializeAsString(), stats.SerializeAsString());
}

// Of any size, so that some share their memory, some end it, and some are too large for it.
TEST(StepRecordTest, RecordsOutliveTheirMakerAndEachOther) {
  constexpr int kSteps = 200;
  const auto stats_of = [](int step) {
    v1::StepStats stats = StatsOf(step);
    for (int i = 0; i < step * 7 % 50; ++i) stats.add_tensors()->set_norm(1.0 + step + i);
    return stats;
  };
  std::vector<std::shared_ptr<const StepRecord>> records;
  {
    RecordMaker maker;
    for (int step = 0; step < kSteps; ++step) {
      v1::StepStats stats = stats_of(step);
      auto record = maker.Make(&stats);
      EXPECT_EQ(stats.SerializeAsString(), stats_of(step).SerializeAsString());
      if (step % 3 != 0) records.push_back(std::move(record));
    }
  }

  ASSERT_EQ(records.front()->step, 1);
  ASSERT_EQ(records.back()->step, kSteps - 1);
  for (const auto& record : records) {
    v1::StepStats kept;
    ASSERT_TRUE(ParseRecord(*record, &kept));
    EXPECT_EQ(kept.SerializeAsString(),
              stats_of(static_cast<int>(record->step)).SerializeAsString());
  }
}

TEST(StepRecordTest, KnowsThatAStepWasNotFinite) {
  v1::StepStats bad_loss = StatsOf(0);
  bad_loss.set_loss(std::numeric_limits<double>::quiet_NaN());
  v1::StepStats bad_update = StatsOf(0);
  bad_update.mutable_nonfinite_origin()->set_tensor("update/rnn.weight_hh_l0");

  EXPECT_TRUE(RecordOf(bad_loss)->nonfinite);
  EXPECT_TRUE(RecordOf(bad_update)->nonfinite);
}

TEST(StepRecordTest, KeepsWhatFoldingNeeds) {
  v1::StepStats stats = StatsOf(0);
  stats.set_norm_after(0.0);
  stats.mutable_growth()->set_horizon(3.0);
  stats.set_clipped(true);
  stats.set_skipped(true);
  stats.set_nonfinite_count(2);

  const auto record = RecordOf(stats);

  EXPECT_EQ(record->step, 0);
  EXPECT_EQ(record->loss, 1.0);
  EXPECT_EQ(record->norm_before, 10.0);
  EXPECT_EQ(record->norm_after, 0.0);
  EXPECT_EQ(record->growth_factor, 0.0);
  EXPECT_TRUE(record->clipped);
  EXPECT_TRUE(record->skipped);
  EXPECT_TRUE(record->nonfinite);
  EXPECT_FALSE(record->evaluated);
  EXPECT_TRUE(record->details.empty());
}

// What a view takes of the wire, and the maker of the message.
TEST(StepRecordTest, AViewOfItsWireSaysTheSame) {
  std::vector<v1::StepStats> steps(1, StatsOf(41));
  // One more field in each, so that each is missing, and there, beside all before it.
  const auto add = [&steps]() -> v1::StepStats& { return steps.emplace_back(steps.back()); };
  for (int i = 0; i < 300; ++i) steps[0].add_tensors()->set_norm(i);
  add().set_norm_after(0.0);
  add().mutable_growth()->add_layer_growth_factors(0.8);
  add().mutable_growth()->set_growth_factor(0.9);
  add().set_update_ratio(0.001);
  add().set_gradient_cosine(-0.5);
  add().set_distance_ratio(0.75);
  add().set_clipped(true);
  add().set_skipped(true);
  add().add_shadow_reports()->set_clipped(false);
  add().add_shadow_reports()->set_clipped(true);
  add().mutable_evaluation()->set_loss(0.25);
  add().add_interventions()->set_name("jobs/a/interventions/1");
  add().add_lengths()->set_loss(0.5);
  add().set_nonfinite_count(2);
  add().mutable_nonfinite_origin()->set_tensor("loss");
  add().set_loss(std::numeric_limits<double>::quiet_NaN());

  RecordMaker maker;
  for (v1::StepStats& stats : steps) {
    SCOPED_TRACE(stats.ShortDebugString().substr(0, 200));
    const auto record = maker.Make(&stats);
    StepRecord view;
    ViewRecord(record->wire, &view);
    ExpectSameRecord(view, *record);
  }
  EXPECT_TRUE(maker.Make(&steps.back())->evaluated);
  EXPECT_TRUE(maker.Make(&steps.back())->intervened);
}

// Three shadow clips, of which the second would have clipped.
void AddShadowReports(v1::StepStats* stats) {
  for (int i = 0; i < 3; ++i) {
    v1::ShadowReport* report = stats->add_shadow_reports();
    report->set_clipped(i == 1);
    report->set_coefficient(i == 1 ? 0.5 : 1.0);
  }
}

TEST(StepRecordTest, KeepsWhichShadowClipsWouldHaveClipped) {
  v1::StepStats stats = StatsOf(3);
  stats.add_tensors()->set_norm(2.0);
  AddShadowReports(&stats);

  const auto record = RecordOf(stats);
  StepRecord view;
  ViewRecord(record->wire, &view);

  for (const StepRecord* seen : {record.get(), static_cast<const StepRecord*>(&view)}) {
    EXPECT_EQ(seen->shadows, 3);
    EXPECT_EQ(seen->shadows_clipped, 0b010);
    v1::StepStats scalars;
    ASSERT_TRUE(ParseScalars(*seen, &scalars));
    EXPECT_EQ(scalars.shadow_reports_size(), 3);
    EXPECT_EQ(scalars.tensors_size(), 0);
  }
}

TEST(FoldTest, CountsWhatEachShadowClipWouldHaveClipped) {
  v1::StepStats stats = StatsOf(0);
  AddShadowReports(&stats);
  v1::FoldedStats folded;

  Fold(*RecordOf(stats), &folded);
  Fold(*RecordOf(stats), &folded);

  ASSERT_EQ(folded.shadow_clipped_steps_size(), 3);
  EXPECT_EQ(folded.shadow_clipped_steps(0), 0);
  EXPECT_EQ(folded.shadow_clipped_steps(1), 2);
  EXPECT_EQ(folded.shadow_clipped_steps(2), 0);
}

TEST(FoldTest, KeepsExtremesCountsAndMeanOfFiniteValues) {
  v1::FoldedStats folded;
  for (const double loss : {3.0, 1.0, 2.0}) {
    v1::StepStats stats = StatsOf(static_cast<int64_t>(10 - loss));
    stats.set_loss(loss);
    stats.set_clipped(loss > 1.5);
    Fold(*RecordOf(stats), &folded);
  }
  v1::StepStats bad = StatsOf(9);
  bad.set_loss(std::numeric_limits<double>::infinity());
  bad.set_skipped(true);
  Fold(*RecordOf(bad), &folded);

  EXPECT_EQ(folded.count(), 4);
  EXPECT_EQ(folded.first_step(), 7);
  EXPECT_EQ(folded.last_step(), 9);
  EXPECT_EQ(folded.loss().minimum(), 1.0);
  EXPECT_EQ(folded.loss().maximum(), 3.0);
  EXPECT_DOUBLE_EQ(folded.loss().mean(), 2.0);
  EXPECT_EQ(folded.loss().last(), 2.0);
  EXPECT_EQ(folded.loss().count(), 3);
  EXPECT_EQ(folded.norm_before().count(), 4);
  EXPECT_EQ(folded.norm_after().count(), 0);
  EXPECT_EQ(folded.clipped_steps(), 2);
  EXPECT_EQ(folded.skipped_steps(), 1);
  EXPECT_EQ(folded.nonfinite_steps(), 1);
}

TEST(FoldTest, KeepsInterventions) {
  v1::FoldedStats folded;
  for (int64_t step = 0; step < 3; ++step) {
    v1::StepStats stats = StatsOf(step);
    if (step == 1) stats.add_interventions()->set_name("jobs/a/interventions/1");
    Fold(*RecordOf(stats), &folded);
  }

  ASSERT_EQ(folded.interventions_size(), 1);
  EXPECT_EQ(folded.interventions(0).name(), "jobs/a/interventions/1");
}

TEST(FoldTest, FoldsWhatFewJobsMeasureOnlyWhereItIs) {
  v1::FoldedStats without, with;
  Fold(*RecordOf(StatsOf(0)), &without);
  for (const double cosine : {-0.5, 0.25}) {
    v1::StepStats stats = StatsOf(0);
    stats.set_update_ratio(2.0);
    stats.set_gradient_cosine(cosine);
    stats.set_distance_ratio(cosine + 1.0);
    Fold(*RecordOf(stats), &with);
  }
  Fold(*RecordOf(StatsOf(1)), &with);

  EXPECT_FALSE(without.has_update_ratio() || without.has_gradient_cosine() ||
               without.has_distance_ratio());
  EXPECT_EQ(with.update_ratio().count(), 2);
  EXPECT_EQ(with.gradient_cosine().minimum(), -0.5);
  EXPECT_EQ(with.gradient_cosine().maximum(), 0.25);
  EXPECT_EQ(with.distance_ratio().mean(), 0.875);
}

TEST(FoldTest, MeanOfHugeValuesDoesNotOverflow) {
  constexpr double kHuge = std::numeric_limits<double>::max();
  v1::FoldedStats folded;
  for (int64_t step = 0; step < 4; ++step) {
    v1::StepStats stats = StatsOf(step);
    stats.set_loss(kHuge);
    Fold(*RecordOf(stats), &folded);
  }

  // Each fold rounds twice: 8 roundings of half an epsilon each.
  EXPECT_NEAR(folded.loss().mean() / kHuge, 1.0, 8 * std::numeric_limits<double>::epsilon());
}

}  // namespace
}  // namespace gradwatch::jobs
