#include "server/nn/initialize.h"

#include <algorithm>
#include <cmath>

#include "Eigen/Core"
#include "Eigen/QR"
#include "server/base/check.h"
#include "server/base/philox.h"

namespace gradwatch::nn {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

const Init& InitOf(const NetworkConfig& config, Role role) {
  switch (role) {
    case Role::kEmbedding:
      return config.embedding_init;
    case Role::kInputWeight:
      return config.input_init;
    case Role::kRecurrentWeight:
      return config.recurrent_init;
    case Role::kInputBias:
    case Role::kRecurrentBias:
      return config.bias_init;
    case Role::kReadoutWeight:
      return config.readout_init;
    case Role::kReadoutBias:
      break;
  }
  return config.readout_bias_init;
}

template <typename S>
void FillNormal(RandomStream& stream, double deviation, absl::Span<S> values) {
  for (S& value : values) value = static_cast<S>(deviation * stream.NextNormal());
}

// Both torch.nn.RNN and torch.nn.Linear draw all their tensors within one bound: the fan-in of the
// read-out is H too.
template <typename S>
void FillPyTorch(RandomStream& stream, const NetworkConfig& config, Role role,
                 absl::Span<S> values) {
  if (role == Role::kEmbedding) {
    FillNormal(stream, 1.0, values);
    return;
  }
  const double bound = 1.0 / std::sqrt(static_cast<double>(config.hidden));
  for (S& value : values) {
    value = static_cast<S>(bound * (2.0 * stream.NextUniform() - 1.0));
  }
}

// The signs of diag(R) make the distribution uniform (Mezzadri, "How to generate random matrices
// from the classical compact groups", 2007) and the result that of torch.nn.init.orthogonal_.
Matrix Orthogonal(RandomStream& stream, int64_t rows, int64_t columns) {
  const bool wide = rows < columns;
  Matrix gaussian(std::max(rows, columns), std::min(rows, columns));
  for (Eigen::Index i = 0; i < gaussian.size(); ++i) gaussian.data()[i] = stream.NextNormal();
  const Eigen::HouseholderQR<Matrix> qr(gaussian);
  Matrix q = qr.householderQ() * Matrix::Identity(gaussian.rows(), gaussian.cols());
  for (Eigen::Index j = 0; j < q.cols(); ++j) {
    if (qr.matrixQR()(j, j) < 0.0) q.col(j) = -q.col(j);
  }
  if (wide) q.transposeInPlace();
  return q;
}

int64_t BlocksOf(const NetworkConfig& config, Role role) {
  return role == Role::kInputWeight || role == Role::kRecurrentWeight ? GatesOf(config.cell) : 1;
}

template <typename S>
void FillBlocks(RandomStream& stream, const Init& init, const Parameter& parameter, int64_t blocks,
                absl::Span<S> values) {
  using Target = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  GRADWATCH_CHECK(parameter.shape.size() == 2);
  const int64_t rows = parameter.shape[0] / blocks;
  const int64_t columns = parameter.shape[1];
  for (int64_t block = 0; block < blocks; ++block) {
    Eigen::Map<Target> target(values.data() + block * rows * columns, rows, columns);
    const Matrix values_of_block = init.kind == Init::Kind::kOrthogonal
                                       ? Orthogonal(stream, rows, columns)
                                       : Matrix(Matrix::Identity(rows, columns));
    target = (values_of_block * init.value).template cast<S>();
  }
}

}  // namespace

template <typename S>
void FillInitialValues(const NetworkConfig& config, const Parameter& parameter, uint64_t seed,
                       absl::Span<S> values) {
  GRADWATCH_CHECK(static_cast<int64_t>(values.size()) == parameter.size);
  RandomStream stream(seed, StreamOf(parameter.name), 0);
  const Init& init = InitOf(config, parameter.role);
  switch (init.kind) {
    case Init::Kind::kPyTorch:
      FillPyTorch(stream, config, parameter.role, values);
      break;
    case Init::Kind::kOrthogonal:
    case Init::Kind::kIdentity:
      FillBlocks(stream, init, parameter, BlocksOf(config, parameter.role), values);
      break;
    case Init::Kind::kNormal:
      FillNormal(stream, init.value, values);
      break;
    case Init::Kind::kConstant:
      std::fill(values.begin(), values.end(), static_cast<S>(init.value));
      break;
  }
  const bool bias = parameter.role == Role::kInputBias || parameter.role == Role::kRecurrentBias;
  if (config.cell == Cell::kLstm && bias && config.forget_gate_bias.has_value()) {
    const double value = parameter.role == Role::kInputBias ? *config.forget_gate_bias : 0.0;
    std::fill_n(values.begin() + config.hidden, config.hidden, static_cast<S>(value));
  }
}

template void FillInitialValues(const NetworkConfig&, const Parameter&, uint64_t,
                                absl::Span<float>);
template void FillInitialValues(const NetworkConfig&, const Parameter&, uint64_t,
                                absl::Span<double>);

}  // namespace gradwatch::nn
