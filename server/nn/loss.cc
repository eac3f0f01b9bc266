#include "server/nn/loss.h"

#include <algorithm>
#include <cmath>

#include "server/nn/packet.h"

namespace gradwatch::nn {

template <typename S>
double MeanSquared(const S* output, const double* target, int64_t n, double factor, S* gradient) {
  const double scale = 2.0 * factor / static_cast<double>(n);
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(output[i]) - target[i];
    sum += difference * difference;
    gradient[i] = static_cast<S>(scale * difference);
  }
  return sum / static_cast<double>(n);
}

template <typename S>
double CrossEntropy(const S* output, int32_t target, int64_t n, double factor, S* gradient) {
  const S largest = *std::max_element(output, output + n);
  const Packet<S> shift = packet::pset1<Packet<S>>(largest);
  ForPackets<S>(n, [&](int64_t j, auto lanes) {
    Store<S>(gradient + j, packet::pexp(packet::psub(Load<S>(output + j, lanes), shift)), lanes);
  });
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(gradient[i]);
  const double scale = factor / sum;
  for (int64_t i = 0; i < n; ++i) {
    gradient[i] = static_cast<S>(scale * static_cast<double>(gradient[i]));
  }
  gradient[target] -= static_cast<S>(factor);
  return std::log(sum) + static_cast<double>(largest) - static_cast<double>(output[target]);
}

template double MeanSquared(const float*, const double*, int64_t, double, float*);
template double MeanSquared(const double*, const double*, int64_t, double, double*);
template double CrossEntropy(const float*, int32_t, int64_t, double, float*);
template double CrossEntropy(const double*, int32_t, int64_t, double, double*);

}  // namespace gradwatch::nn
