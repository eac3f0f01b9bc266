#include "server/train/job_network.h"

namespace gradwatch::train {
namespace {

nn::Cell CellOf(v1::Model::Cell cell) {
  switch (cell) {
    case v1::Model::CELL_RNN_TANH:
      return nn::Cell::kRnnTanh;
    case v1::Model::CELL_RNN_RELU:
      return nn::Cell::kRnnRelu;
    case v1::Model::CELL_RNN_SIGMOID:
      return nn::Cell::kRnnSigmoid;
    case v1::Model::CELL_GRU:
      return nn::Cell::kGru;
    default:
      return nn::Cell::kLstm;
  }
}

nn::Init InitOf(const v1::Initializer& initializer) {
  using Kind = nn::Init::Kind;
  switch (initializer.kind_case()) {
    case v1::Initializer::kOrthogonalGain:
      return {Kind::kOrthogonal, initializer.orthogonal_gain()};
    case v1::Initializer::kIdentityScale:
      return {Kind::kIdentity, initializer.identity_scale()};
    case v1::Initializer::kNormalDeviation:
      return {Kind::kNormal, initializer.normal_deviation()};
    case v1::Initializer::kConstant:
      return {Kind::kConstant, initializer.constant()};
    case v1::Initializer::kUniform:
    case v1::Initializer::KIND_NOT_SET:
      break;
  }
  return {Kind::kPyTorch, 0.0};
}

void SetInput(const v1::Model& model, const data::TaskShape& shape, nn::NetworkConfig* config) {
  if (shape.vocabulary == 0) {
    config->input = nn::Input::kFeatures;
    config->features = shape.features;
    return;
  }
  config->vocabulary = shape.vocabulary;
  if (model.token_input() == v1::Model::TOKEN_INPUT_EMBEDDING) {
    config->input = nn::Input::kEmbedding;
    config->embedding_width = model.embedding_width();
  } else {
    config->input = nn::Input::kOneHot;
  }
}

void SetInitialization(const v1::Initialization& from, nn::NetworkConfig* config) {
  config->embedding_init = InitOf(from.embedding());
  config->input_init = InitOf(from.input_weights());
  config->recurrent_init = InitOf(from.recurrent_weights());
  config->bias_init = InitOf(from.biases());
  config->readout_init = InitOf(from.readout_weights());
  config->readout_bias_init = InitOf(from.readout_bias());
  if (from.has_forget_gate_bias()) config->forget_gate_bias = from.forget_gate_bias();
}

}  // namespace

nn::NetworkConfig NetworkConfigOf(const v1::Job& job, const data::TaskShape& shape) {
  nn::NetworkConfig config;
  config.cell = CellOf(job.model().cell());
  config.layers = job.model().layers();
  config.hidden = job.model().hidden_units();
  SetInput(job.model(), shape, &config);
  config.outputs = shape.outputs;
  config.loss = shape.classification ? nn::Loss::kCrossEntropy : nn::Loss::kMeanSquared;
  config.loss_at = shape.loss_at_last ? nn::LossAt::kLastStep : nn::LossAt::kEachStep;
  config.truncation = job.training().has_truncation() ? job.training().truncation() : 0;
  SetInitialization(job.model().initialization(), &config);
  return config;
}

std::vector<v1::ParameterInfo> ParameterInfosOf(const std::vector<nn::Parameter>& parameters) {
  std::vector<v1::ParameterInfo> infos(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    infos[i].set_name(parameters[i].name);
    for (const int64_t extent : parameters[i].shape) infos[i].add_shape(extent);
    infos[i].set_layer(parameters[i].layer);
    infos[i].set_recurrent(parameters[i].role == nn::Role::kRecurrentWeight);
  }
  return infos;
}

}  // namespace gradwatch::train
