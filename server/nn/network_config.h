#ifndef GRADWATCH_SERVER_NN_NETWORK_CONFIG_H_
#define GRADWATCH_SERVER_NN_NETWORK_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/base/export.h"

namespace gradwatch::nn {

enum class Cell { kRnnTanh, kRnnRelu, kRnnSigmoid, kGru, kLstm };
enum class Input { kFeatures, kOneHot, kEmbedding };
enum class Loss { kMeanSquared, kCrossEntropy };
// kLastStep reads each row at its own last valid time step.
enum class LossAt { kEachStep, kLastStep };

// How a tensor gets its first values. Orthogonal and identity are made per gate block of H rows
// (one block for the embedding and the read-out) and exist for matrices only.
struct Init {
  enum class Kind {
    kPyTorch,     // What torch.nn does: RNN parameters U(+-1/sqrt(H)), Linear U(+-1/sqrt(fan_in)),
                  // embedding N(0, 1). `value` is unused.
    kOrthogonal,  // (Semi-)orthogonal: QR of a Gaussian with the signs of diag(R), times `value`.
    kIdentity,    // `value` on the diagonal.
    kNormal,      // N(0, value^2).
    kConstant,    // `value` everywhere.
  };
  Kind kind = Kind::kPyTorch;
  double value = 0.0;
};

constexpr int kLayersMax = 8;

// What a network is: input -> `layers` recurrent layers of one cell -> dense read-out -> loss.
// Equations, shapes and gate order are those of torch.nn.RNN, GRU and LSTM (LSTM gates i, f, g, o;
// GRU gates r, z, n with the reset after the product), with both bias vectors.
// Whoever fills it checks it: sizes are positive, 1 <= layers <= kLayersMax, and the fields that
// the input kind needs are set.
struct NetworkConfig {
  Cell cell = Cell::kLstm;
  int layers = 1;
  int64_t hidden = 128;

  Input input = Input::kFeatures;
  int64_t features = 0;         // Width of an input vector (kFeatures).
  int64_t vocabulary = 0;       // Number of tokens (kOneHot, kEmbedding).
  int64_t embedding_width = 0;  // (kEmbedding)

  int64_t outputs = 1;  // Width of the read-out: target width, or number of classes.
  Loss loss = Loss::kMeanSquared;
  LossAt loss_at = LossAt::kEachStep;

  // Back-propagate through at most this many time steps: the carry is cut between t - 1 and t for
  // every t > 0 that is a multiple of it. 0 = through all.
  int64_t truncation = 0;

  Init embedding_init;
  Init input_init;      // weight_ih of every layer.
  Init recurrent_init;  // weight_hh of every layer.
  Init bias_init;       // bias_ih and bias_hh of every layer.
  Init readout_init;
  Init readout_bias_init;
  // LSTM only: after bias_init, the forget gate's part of bias_ih is this and of bias_hh is 0.
  std::optional<double> forget_gate_bias;
};

enum class Role {
  kEmbedding,
  kInputWeight,
  kRecurrentWeight,
  kInputBias,
  kRecurrentBias,
  kReadoutWeight,
  kReadoutBias,
};

// One tensor inside the flat buffers of weights and gradients, row-major at `offset`.
//
// Names: "embedding.weight" [V, E]; "rnn.weight_ih_l0" [G*H, in], "rnn.weight_hh_l0" [G*H, H],
// "rnn.bias_ih_l0" [G*H], "rnn.bias_hh_l0" [G*H], then "..._l1"; "readout.weight" [O, H],
// "readout.bias" [O]. Without the prefix up to the dot they are the keys of the state_dict of
// torch.nn.Embedding, RNN/GRU/LSTM and Linear.
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;
  int64_t size = 0;
  int layer = -1;  // Recurrent layer, -1 for embedding and read-out.
  Role role = Role::kEmbedding;
};

// G: gates per unit, 1 for the plain cells, 3 for GRU, 4 for LSTM.
GRADWATCH_ENGINE_API int GatesOf(Cell cell);

// In the order of the flat buffer, which has no gaps.
GRADWATCH_ENGINE_API std::vector<Parameter> ParametersOf(const NetworkConfig& config);

// Entries in the flat buffer; INT64_MAX when that overflows.
GRADWATCH_ENGINE_API int64_t ParameterCountOf(const NetworkConfig& config);

// Threads that can share the work on batches of `rows` x `time_steps` with profit; at least 1.
GRADWATCH_ENGINE_API int ThreadsUsefulOf(const NetworkConfig& config, int64_t rows,
                                         int64_t time_steps);

// Bytes that a Network<S> of sizeof(S) = `scalar_size` allocates for batches of up to `rows` x
// `time_steps` and a team of up to `threads`. Saturates at INT64_MAX, so any positive sizes may be
// asked about.
GRADWATCH_ENGINE_API int64_t MemoryBytesOf(const NetworkConfig& config, int64_t rows,
                                           int64_t time_steps, int64_t scalar_size,
                                           int threads = 1);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_NETWORK_CONFIG_H_
