#include "server/stats/estimators.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace gradwatch::stats {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Ema, CorrectsTheBiasOfItsStart) {
  Ema ema(0.98);
  EXPECT_TRUE(std::isnan(ema.value()));

  ema.Add(5.0);
  EXPECT_DOUBLE_EQ(ema.value(), 5.0);

  ema.Add(7.0);
  EXPECT_NEAR(ema.value(), (0.98 * 0.02 * 5.0 + 0.02 * 7.0) / (1.0 - 0.98 * 0.98), 1e-12);
}

TEST(Ema, DropsWhatIsNotFinite) {
  Ema ema(0.5);
  ema.Add(1.0);

  ema.Add(kNaN);
  ema.Add(kInfinity);

  EXPECT_EQ(ema.value(), 1.0);
  EXPECT_EQ(ema.count(), 1);
}

TEST(Window, QuantilesInterpolateBetweenOrderStatistics) {
  Window window(10);
  EXPECT_TRUE(std::isnan(window.Quantile(0.5)));
  for (const double value : {4.0, 1.0, 3.0, 2.0}) window.Add(value);

  EXPECT_EQ(window.Quantile(0.0), 1.0);
  EXPECT_EQ(window.Quantile(0.5), 2.5);
  EXPECT_EQ(window.Quantile(1.0), 4.0);
  EXPECT_NEAR(window.Quantile(0.9), 3.7, 1e-12);
}

TEST(Window, ForgetsTheOldest) {
  Window window(3);
  for (const double value : {100.0, 200.0, 1.0, kNaN, 2.0, 3.0}) window.Add(value);

  EXPECT_EQ(window.size(), 3);
  EXPECT_EQ(window.Quantile(1.0), 3.0);
  EXPECT_EQ(window.Quantile(0.0), 1.0);
}

// The definition: sort, then interpolate.
double SlowQuantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double position = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const double fraction = position - static_cast<double>(below);
  if (fraction == 0.0) return values[below];
  return values[below] + fraction * (values[below + 1] - values[below]);
}

TEST(Window, AgreesWithItsDefinitionByEveryBitWhateverComes) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::normal_distribution<double> noise;
    const int capacity = 1 + static_cast<int>(random() % (seed % 2 == 0 ? 40 : 200));
    const unsigned values_per_question = 1 + seed % 4;
    Window window(capacity);
    std::deque<double> kept;
    for (int i = 0; i < 500; ++i) {
      // Some values come often.
      const double value = random() % 2 == 0 ? noise(random) : static_cast<double>(random() % 4);
      window.Add(value);
      kept.push_back(value);
      if (static_cast<int>(kept.size()) > capacity) kept.pop_front();
      if (random() % values_per_question != 0) continue;
      const std::vector<double> values(kept.begin(), kept.end());
      const double center = i % 3 == 0 ? window.Quantile(0.5) : 3.0 * noise(random);
      std::vector<double> distances;
      for (const double v : values) distances.push_back(std::abs(v - center));

      ASSERT_EQ(window.Quantile(0.5), SlowQuantile(values, 0.5));
      ASSERT_EQ(window.Quantile(0.83), SlowQuantile(values, 0.83));
      ASSERT_EQ(window.MedianDistance(center), SlowQuantile(distances, 0.5));
    }
  }
}

TEST(Window, KnowsWhatTheNextValuePushesOut) {
  Window window(2);
  window.Add(3.0);
  EXPECT_FALSE(window.full());

  window.Add(4.0);
  EXPECT_TRUE(window.full());
  EXPECT_EQ(window.oldest(), 3.0);
  window.Add(5.0);

  EXPECT_EQ(window.oldest(), 4.0);
}

TEST(Window, KeepsTheNewestThatFitWhenItIsResized) {
  for (const int before : {1, 3, 8, 40}) {
    for (const int after : {1, 3, 8, 40}) {
      SCOPED_TRACE(testing::Message() << before << " to " << after);
      Window window(before);
      std::deque<double> kept;
      const auto feed = [&](int from, int to, size_t capacity) {
        for (int i = from; i < to; ++i) {
          const double value = (i * 7) % 11;
          window.Add(value);
          kept.push_back(value);
          if (kept.size() > capacity) kept.pop_front();
        }
      };
      feed(0, 20, static_cast<size_t>(before));

      window.Resize(after);
      while (kept.size() > static_cast<size_t>(after)) kept.pop_front();

      EXPECT_EQ(window.capacity(), after);
      EXPECT_EQ(window.OldestFirst(), std::vector<double>(kept.begin(), kept.end()));
      feed(20, 33, static_cast<size_t>(after));
      EXPECT_EQ(window.OldestFirst(), std::vector<double>(kept.begin(), kept.end()));
      EXPECT_EQ(window.Quantile(0.3), SlowQuantile({kept.begin(), kept.end()}, 0.3));
    }
  }
}

TEST(RecentShare, KeepsTheNewestThatFitWhenItIsResized) {
  RecentShare share(4);
  for (const bool yes : {false, true, true, false, true}) share.Add(yes);

  share.Resize(2);
  EXPECT_EQ(share.value(), 0.5);  // No, yes.
  share.Resize(3);
  EXPECT_EQ(share.size(), 2);
  share.Add(true);
  EXPECT_EQ(share.yeses(), 2);
  share.Add(true);

  EXPECT_EQ(share.yeses(), 3);
  EXPECT_EQ(share.size(), 3);
}

TEST(Ema, GoesOnFromItsValueWithAnotherBeta) {
  Ema ema(0.95);
  for (const double value : {3.0, 5.0, 4.0}) ema.Add(value);
  const double before = ema.value();

  ema.SetBeta(0.5);
  EXPECT_EQ(ema.value(), before);
  for (int i = 0; i < 60; ++i) ema.Add(1.0);

  // Of what was before, half is left after each value.
  EXPECT_NEAR(ema.value(), 1.0, 1e-15);
}

TEST(RecentShare, CountsTheLastAnswersOnly) {
  RecentShare share(4);
  EXPECT_TRUE(std::isnan(share.value()));

  for (const bool yes : {true, true, false}) share.Add(yes);
  EXPECT_DOUBLE_EQ(share.value(), 2.0 / 3.0);
  for (const bool yes : {false, false, true}) share.Add(yes);

  EXPECT_EQ(share.size(), 4);
  EXPECT_EQ(share.yeses(), 1);
  EXPECT_EQ(share.value(), 0.25);
}

TEST(RecentShare, ContinuesFromItsStateAndRefusesAnother) {
  RecentShare share(3);
  for (const bool yes : {true, false, true, true}) share.Add(yes);
  StateWriter writer;
  share.SaveState(&writer);
  RecentShare loaded(3), small(2);

  StateReader reader(writer.bytes());
  loaded.LoadState(&reader);
  StateReader other(writer.bytes());
  small.LoadState(&other);
  loaded.Add(false);
  share.Add(false);

  EXPECT_TRUE(reader.ok());
  EXPECT_EQ(loaded.value(), share.value());
  EXPECT_FALSE(other.ok());
  EXPECT_EQ(small.size(), 0);
}

TEST(LogMadWindow, ScoresAgainstThePastOnly) {
  LogMadWindow window;
  for (int i = 0; i < 128; ++i) window.Add(std::exp(i % 2 == 0 ? 1.0 : 3.0));

  // Median 2, median distance 1.
  EXPECT_NEAR(window.RobustZ(std::exp(2.0)), 0.0, 1e-12);
  EXPECT_NEAR(window.RobustZ(std::exp(2.0 + 1.4826 * 20.0)), 20.0, 1e-9);
  EXPECT_NEAR(window.median(), std::exp(2.0), 1e-12);
}

TEST(LogMadWindow, ScaleHasAFloor) {
  LogMadWindow window;
  for (int i = 0; i < 64; ++i) window.Add(2.0);

  EXPECT_NEAR(window.RobustZ(2.0 * std::exp(0.7)), 7.0, 1e-9);
}

TEST(LogMadWindow, SurvivesNonFiniteZeroAndHugeValues) {
  LogMadWindow window;
  for (int i = 0; i < 100; ++i) window.Add(1.0);

  window.Add(kNaN);
  window.Add(kInfinity);
  window.Add(0.0);
  window.Add(-1.0);
  EXPECT_EQ(window.size(), 100);
  window.Add(1e300);

  EXPECT_NEAR(window.RobustZ(1.0), 0.0, 1e-12);
  EXPECT_TRUE(std::isnan(window.RobustZ(kNaN)));
  EXPECT_TRUE(std::isnan(window.RobustZ(0.0)));
}

TEST(LogMadWindow, AgreesWithSlowReference) {
  LogMadWindow window;
  std::vector<double> logs;
  uint32_t state = 7;
  for (int i = 0; i < 300; ++i) {
    state = state * 1664525U + 1013904223U;
    const double value = std::exp(static_cast<double>(state >> 8) / (1 << 22) - 2.0);
    if (logs.size() >= 10) {
      std::vector<double> past(logs.end() - std::min<ptrdiff_t>(128, std::ssize(logs)), logs.end());
      const auto median = [](std::vector<double> v) {
        std::sort(v.begin(), v.end());
        const size_t n = v.size();
        return n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2.0;
      };
      const double center = median(past);
      std::vector<double> distances;
      for (const double x : past) distances.push_back(std::abs(x - center));
      const double scale = std::max(1.4826 * median(distances), 0.1);
      EXPECT_NEAR(window.RobustZ(value), (std::log(value) - center) / scale, 1e-9) << i;
    }
    window.Add(value);
    logs.push_back(std::log(value));
  }
}

TEST(Estimators, ContinueExactlyFromTheirState) {
  Ema ema(0.95);
  LogMadWindow window;
  Window norms(50);
  const auto feed = [](int from, int to, Ema* e, LogMadWindow* w, Window* n) {
    for (int i = from; i < to; ++i) {
      const double value = 1.0 + std::sin(i * 0.7);
      e->Add(value);
      w->Add(value);
      n->Add(value);
    }
  };
  feed(0, 200, &ema, &window, &norms);
  StateWriter writer;
  ema.SaveState(&writer);
  window.SaveState(&writer);
  norms.SaveState(&writer);

  Ema ema2(0.95);
  LogMadWindow window2;
  Window norms2(50);
  StateReader reader(writer.bytes());
  ema2.LoadState(&reader);
  window2.LoadState(&reader);
  norms2.LoadState(&reader);
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(reader.at_end());
  feed(200, 330, &ema, &window, &norms);
  feed(200, 330, &ema2, &window2, &norms2);

  EXPECT_EQ(ema.value(), ema2.value());
  EXPECT_EQ(ema.count(), ema2.count());
  EXPECT_EQ(window.RobustZ(5.0), window2.RobustZ(5.0));
  EXPECT_EQ(norms.Quantile(0.37), norms2.Quantile(0.37));
}

TEST(Estimators, RefuseAStateThatCannotBe) {
  StateWriter writer;
  writer.Int(0);
  writer.Int(1000);  // More values than the window holds.
  Window window(10);
  StateReader reader(writer.bytes());

  window.LoadState(&reader);

  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(window.size(), 0);
}

}  // namespace
}  // namespace gradwatch::stats
