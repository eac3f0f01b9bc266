#include "client/cli/details.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/unit/client/example_run.h"

namespace gradwatch::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A run of which each step was changed so.
RunFacts RunWith(const std::function<void(v1::StepStats*)>& change, v1::Model::Cell cell) {
  RunFacts facts = ExampleRun(std::vector<ExampleStep>(100), 50, change);
  facts.summary.job.mutable_model()->set_cell(cell);
  facts.summary.job.mutable_training()->set_batch_size(32);
  return facts;
}

Detail Only(const RunFacts& facts) {
  const std::vector<Detail> details = DetailsOf(facts);
  EXPECT_THAT(details, SizeIs(1));
  return details.empty() ? Detail{} : details[0];
}

TEST(DetailsTest, AreThoseThatWereMeasured) {
  EXPECT_THAT(DetailsOf(ExampleRun({})), IsEmpty());
  EXPECT_THAT(DetailsOf(ExampleRun(std::vector<ExampleStep>(10))), IsEmpty());
  EXPECT_THAT(DetailsOf(MeasuredRun()), SizeIs(11));
}

TEST(DetailsTest, HaveANameAndAPictureForEachCurve) {
  for (const Detail& detail : DetailsOf(MeasuredRun())) {
    EXPECT_EQ(detail.names.size(), detail.chart.curves.size()) << detail.title;
    EXPECT_EQ(std::set<std::string>(detail.names.begin(), detail.names.end()).size(),
              detail.names.size())
        << detail.title;
    EXPECT_NE(DrawLineChart(detail.chart, detail.span), "") << detail.title;
  }
}

TEST(DetailsTest, NameTheGatesOfTheCell) {
  const auto gates = [](v1::StepStats* step) {
    v1::LayerTimeStats* const layer = step->add_layers();
    for (const double mean : {0.1, 0.2, 0.3}) layer->add_gate_mean(mean);
  };

  const Detail gru = Only(RunWith(gates, v1::Model::CELL_GRU));

  EXPECT_THAT(gru.names, ElementsAre("reset gate r", "update gate z", "candidate n"));
  EXPECT_EQ(gru.chart.curves[1].points[0].middle, 0.2);
  EXPECT_EQ(GateName(v1::Model::CELL_LSTM, 1), "forget gate f");
  EXPECT_EQ(GateName(v1::Model::CELL_UNSPECIFIED, 3), "output gate o");
  EXPECT_EQ(GateName(v1::Model::CELL_RNN_TANH, 0), "");
}

TEST(DetailsTest, SayWhereTheGradientOfAPlainCellFades) {
  const auto matrix = [](v1::StepStats* step) {
    step->add_recurrent()->add_sigma_max(1.5);
    step->mutable_recurrent(0)->add_spectral_radius(1.25);
  };

  const Detail tanh = Only(RunWith(matrix, v1::Model::CELL_RNN_TANH));
  const Detail sigmoid = Only(RunWith(matrix, v1::Model::CELL_RNN_SIGMOID));

  EXPECT_THAT(tanh.names, ElementsAre("largest singular value", "spectral radius"));
  EXPECT_EQ(tanh.chart.limits[0].value, 1);
  EXPECT_EQ(sigmoid.chart.limits[0].value, 4);
  EXPECT_THAT(Only(RunWith(matrix, v1::Model::CELL_LSTM)).chart.limits, IsEmpty());
}

TEST(DetailsTest, ShowFourLayersAndSayThatThereAreMore) {
  const auto slopes = [](int count) {
    return [count](v1::StepStats* step) {
      for (int i = 0; i < count; ++i) {
        v1::LayerTimeStats* const layer = step->add_layers();
        layer->set_layer(i);
        layer->set_activation_slope(0.1 * i);
      }
    };
  };

  const Detail few = Only(RunWith(slopes(4), v1::Model::CELL_RNN_TANH));
  const Detail many = Only(RunWith(slopes(6), v1::Model::CELL_RNN_TANH));

  EXPECT_THAT(few.names, ElementsAre("layer 0", "layer 1", "layer 2", "layer 3"));
  EXPECT_EQ(few.caption.find("not shown"), std::string::npos);
  EXPECT_THAT(many.names, SizeIs(4));
  EXPECT_THAT(many.caption, HasSubstr("Layers 4 and up are not shown."));
}

TEST(DetailsTest, DrawProbeAndStateGradientOverTheLag) {
  const auto probe = [](v1::StepStats* step) {
    v1::ProbeStats* const stats = step->add_probe();
    for (const float norm : {4.f, 2.f, 0.f}) stats->add_lag_profile(norm);
    stats->set_decay_factor(step->step() == 0 ? 0.75 : 0.5);
    stats->set_horizon(1);
    v1::LayerTimeStats* const layer = step->add_layers();
    for (const float norm : {1.f, 3.f, 2.f}) layer->add_state_gradient_norm(norm);
  };

  const Detail detail = Only(RunWith(probe, v1::Model::CELL_RNN_TANH));

  EXPECT_EQ(detail.chart.x_title, "lag");
  EXPECT_THAT(detail.names, ElementsAre("probe of step 99", "gradient at the state in step 99",
                                        "probe of step 0"));
  ASSERT_THAT(detail.chart.curves[0].points, SizeIs(3));
  EXPECT_EQ(detail.chart.curves[0].points[1].middle, 0.5);
  EXPECT_TRUE(std::isnan(detail.chart.curves[0].points[2].middle)) << "underflow";
  EXPECT_EQ(detail.chart.curves[1].points[1].middle, 1.5);
  EXPECT_THAT(detail.caption, HasSubstr("In step 99, each time step back multiplies it by 0.5; a "
                                        "thousandth is left up to lag 1."));
}

TEST(DetailsTest, TellTheLossByLengthWhereThereAreSeveral) {
  const auto lengths = [](int count) {
    return [count](v1::StepStats* step) {
      for (int i = 0; i < count; ++i) {
        v1::LengthStats* const group = step->add_lengths();
        group->set_minimum(10 + 10 * i);
        group->set_maximum(10 + 10 * i);
        group->set_rows(4);
        group->set_loss((step->step() < 50 ? 1.0 : 0.1) * (1 + i));
      }
    };
  };

  const Detail detail = Only(RunWith(lengths(3), v1::Model::CELL_LSTM));

  ASSERT_THAT(detail.names, SizeIs(2));
  ASSERT_THAT(detail.chart.curves[0].points, SizeIs(3));
  EXPECT_EQ(detail.chart.curves[0].points[2].step, 30);
  EXPECT_NEAR(detail.chart.curves[0].points[2].middle, 3, 1e-12);
  EXPECT_NEAR(detail.chart.curves[1].points[2].middle, 0.3, 1e-12);
  EXPECT_THAT(DetailsOf(RunWith(lengths(1), v1::Model::CELL_LSTM)), IsEmpty());
}

TEST(DetailsTest, HoldTheNoiseScaleAgainstTheBatch) {
  const auto noise = [](v1::StepStats* step) { step->mutable_noise()->set_noise_scale(400); };

  const Detail detail = Only(RunWith(noise, v1::Model::CELL_LSTM));

  EXPECT_EQ(detail.chart.curves[0].points[0].middle, 400);
  EXPECT_EQ(detail.chart.limits[0].value, 32);
}

TEST(CurveHueTest, TellsTwelveCurvesApart) {
  std::set<std::string> hues;
  for (size_t i = 0; i < 12; ++i) hues.insert(CurveHue(i));

  EXPECT_THAT(hues, SizeIs(12));
  EXPECT_EQ(CurveHue(0), "hue0");
  EXPECT_EQ(CurveHue(5), "hue1 dashed");
}

}  // namespace
}  // namespace gradwatch::cli
