#include "server/nn/packet.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradwatch::nn {
namespace {

template <typename S>
std::vector<S> Apply(Packet<S> (*function)(const Packet<S>&), const std::vector<S>& x) {
  std::vector<S> y(x.size());
  ForPackets<S>(static_cast<int64_t>(x.size()), [&](int64_t j, auto lanes) {
    Store<S>(y.data() + j, function(Load<S>(x.data() + j, lanes)), lanes);
  });
  return y;
}

// From -40 to 40, dense around zero.
template <typename S>
std::vector<S> Grid() {
  std::vector<S> x;
  for (double magnitude = 1e-8; magnitude < 40.0; magnitude *= 1.01) {
    x.push_back(static_cast<S>(magnitude));
    x.push_back(static_cast<S>(-magnitude));
  }
  x.push_back(0);
  return x;
}

TEST(Packet, TanhInDoubleIsWithinAFewUlp) {
  const std::vector<double> x = Grid<double>();
  const std::vector<double> y = Apply<double>(Tanh<double>, x);

  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(y[i], std::tanh(x[i]), 4e-16 * std::abs(std::tanh(x[i]))) << x[i];
  }
}

TEST(Packet, SigmoidInDoubleIsWithinAFewUlp) {
  const std::vector<double> x = Grid<double>();
  const std::vector<double> y = Apply<double>(Sigmoid<double>, x);

  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = 1.0 / (1.0 + std::exp(-x[i]));
    EXPECT_NEAR(y[i], expected, 1e-15 * expected) << x[i];
  }
}

TEST(Packet, ActivationsInFloatAreWithinAFewUlp) {
  const std::vector<float> x = Grid<float>();
  const std::vector<float> tanh = Apply<float>(Tanh<float>, x);
  const std::vector<float> sigmoid = Apply<float>(Sigmoid<float>, x);

  for (size_t i = 0; i < x.size(); ++i) {
    const double value = x[i];
    EXPECT_NEAR(tanh[i], std::tanh(value), 5e-7 * std::abs(std::tanh(value))) << value;
    EXPECT_NEAR(sigmoid[i], 1.0 / (1.0 + std::exp(-value)), 2e-7) << value;
  }
}

template <typename S>
void ExpectEndsAndNaN() {
  const S inf = std::numeric_limits<S>::infinity();
  const S nan = std::numeric_limits<S>::quiet_NaN();
  const std::vector<S> x = {nan, -inf, inf, S(-1e30), S(1e30), 0};

  const std::vector<S> tanh = Apply<S>(Tanh<S>, x);
  const std::vector<S> sigmoid = Apply<S>(Sigmoid<S>, x);

  EXPECT_TRUE(std::isnan(tanh[0]));
  EXPECT_TRUE(std::isnan(sigmoid[0]));
  for (const size_t low : {1, 3}) {
    EXPECT_NEAR(tanh[low], S(-1), S(3e-7));
    EXPECT_NEAR(sigmoid[low], S(0), S(1e-9));
  }
  for (const size_t high : {2, 4}) {
    EXPECT_NEAR(tanh[high], S(1), S(3e-7));
    EXPECT_NEAR(sigmoid[high], S(1), S(1e-9));
  }
  EXPECT_EQ(tanh[5], S(0));
  EXPECT_EQ(sigmoid[5], S(0.5));
}

TEST(Packet, ActivationsKeepNaNAndSaturateInDouble) { ExpectEndsAndNaN<double>(); }

TEST(Packet, ActivationsKeepNaNAndSaturateInFloat) { ExpectEndsAndNaN<float>(); }

TEST(Packet, AValueDoesNotDependOnItsPlace) {
  std::vector<float> x(3 * kLanes<float> + 5);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.37f;

  const std::vector<float> y = Apply<float>(Tanh<float>, x);

  EXPECT_THAT(y, testing::Each(y[0]));
}

TEST(Packet, ForPacketsCoversEachIndexOnce) {
  for (int64_t n = 0; n < 3 * kLanes<double> + 2; ++n) {
    std::vector<double> values(static_cast<size_t>(n) + 4, 0.0);
    ForPackets<double>(n, [&](int64_t j, auto lanes) {
      const Packet<double> one = Constant<double>(1.0);
      Store<double>(values.data() + j, packet::padd(Load<double>(values.data() + j, lanes), one),
                    lanes);
    });
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i], static_cast<int64_t>(i) < n ? 1.0 : 0.0) << n;
    }
  }
}

}  // namespace
}  // namespace gradwatch::nn
