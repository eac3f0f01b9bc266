#ifndef GRADWATCH_SERVER_DATA_MACKEY_GLASS_H_
#define GRADWATCH_SERVER_DATA_MACKEY_GLASS_H_

#include <cstdint>
#include <vector>

#include "gradwatch/v1/task.pb.h"

namespace gradwatch::data {

// `samples` values of the Mackey-Glass series with delay 17, one a time unit, after 1000 that are
// dropped: dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, x = 1.2 up to t = 0, by fourth-order
// Runge-Kutta with step 0.1. A longer series begins with the shorter ones.
// Source: Mackey and Glass, "Oscillation and chaos in physiological control systems", 1977.
std::vector<double> MackeyGlassSeries(int64_t samples);

// Bytes that the series of a job's source takes, at its peak.
int64_t MackeyGlassBytes(const v1::MackeyGlassTask& task);

}  // namespace gradwatch::data

#endif  // GRADWATCH_SERVER_DATA_MACKEY_GLASS_H_
