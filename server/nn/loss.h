#ifndef GRADWATCH_SERVER_NN_LOSS_H_
#define GRADWATCH_SERVER_NN_LOSS_H_

#include <cstdint>

namespace gradwatch::nn {

// The loss at one position with `n` outputs, in double. `gradient` [n] becomes its derivative times
// `factor`.

// Mean over the outputs of (output - target)^2.
template <typename S>
double MeanSquared(const S* output, const double* target, int64_t n, double factor, S* gradient);

// -ln softmax(output)[target], through log-sum-exp after the largest output is taken off.
template <typename S>
double CrossEntropy(const S* output, int32_t target, int64_t n, double factor, S* gradient);

extern template double MeanSquared(const float*, const double*, int64_t, double, float*);
extern template double MeanSquared(const double*, const double*, int64_t, double, double*);
extern template double CrossEntropy(const float*, int32_t, int64_t, double, float*);
extern template double CrossEntropy(const double*, int32_t, int64_t, double, double*);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_LOSS_H_
