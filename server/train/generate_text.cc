#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/arithmetic_mode.h"
#include "server/base/philox.h"
#include "server/base/status.h"
#include "server/data/utf8.h"
#include "server/nn/network.h"
#include "server/train/flat_bytes.h"
#include "server/train/job_network.h"
#include "server/train/model_tools.h"

namespace gradwatch::train {
namespace {

constexpr int64_t kPromptMax = 10'000;
constexpr int32_t kCharactersMax = 10'000;
constexpr int32_t kCharactersDefault = 200;
constexpr double kTemperatureMax = 100.0;
constexpr double kTemperatureDefault = 0.8;

struct Wish {
  std::vector<int32_t> prompt;  // Tokens, at least one.
  int32_t characters = 0;
  double temperature = 0.0;
  uint64_t seed = 0;
};

int32_t TokenOf(const v1::Job& job, char32_t code_point) {
  const auto& vocabulary = job.vocabulary();
  const auto found = std::find(vocabulary.begin(), vocabulary.end(), uint32_t{code_point});
  return found == vocabulary.end() ? -1 : static_cast<int32_t>(found - vocabulary.begin());
}

absl::StatusOr<std::vector<int32_t>> PromptTokens(const v1::Job& job, const std::string& prompt) {
  if (prompt.empty()) return std::vector<int32_t>{std::max(0, TokenOf(job, U'\n'))};
  const absl::StatusOr<std::vector<char32_t>> characters = data::DecodeUtf8(prompt);
  if (!characters.ok()) return Annotate(characters.status(), "prompt");
  if (static_cast<int64_t>(characters->size()) > kPromptMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt: got ", characters->size(), " characters, at most ", kPromptMax, " are allowed"));
  }
  std::vector<int32_t> tokens;
  for (const char32_t character : *characters) {
    tokens.push_back(TokenOf(job, character));
    if (tokens.back() >= 0) continue;
    std::string text;
    data::AppendUtf8(character, &text);
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt: character '%s' (U+%04X) at position %d does not occur in the "
                        "training text; use only characters that do",
                        text, static_cast<uint32_t>(character), tokens.size() - 1));
  }
  return tokens;
}

absl::StatusOr<Wish> ReadWish(const v1::Job& job, const v1::GenerateRequest& request) {
  Wish wish;
  wish.characters = request.has_characters() ? request.characters() : kCharactersDefault;
  if (wish.characters < 1 || wish.characters > kCharactersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("characters: got ", wish.characters, ", must be 1 to ", kCharactersMax));
  }
  wish.temperature = request.has_temperature() ? request.temperature() : kTemperatureDefault;
  if (!(wish.temperature >= 0.0 && wish.temperature <= kTemperatureMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature: got ", wish.temperature, ", must be 0 to ", kTemperatureMax));
  }
  wish.seed = request.seed();
  ASSIGN_OR_RETURN(wish.prompt, PromptTokens(job, request.prompt()));
  return wish;
}

// One token at a time, with the state carried on.
Batch SingleTokenBatch() {
  Batch batch;
  batch.time_steps = 1;
  batch.rows = 1;
  batch.tokens = {0};
  batch.target_classes = {0};
  batch.lengths = {1};
  batch.weights = {1.0};
  batch.restart = {1};
  batch.origins = {0};
  return batch;
}

// Draws from softmax(logits / temperature), in double, by inverting the running sum.
template <typename S>
int32_t Choose(absl::Span<const S> logits, double temperature, double uniform,
               std::vector<double>* scratch) {
  const auto best = std::max_element(logits.begin(), logits.end());
  const auto likeliest = static_cast<int32_t>(best - logits.begin());
  if (temperature == 0.0) return likeliest;
  double sum = 0.0;
  scratch->clear();
  for (const S logit : logits) {
    sum += std::exp((static_cast<double>(logit) - static_cast<double>(*best)) / temperature);
    scratch->push_back(sum);
  }
  const auto drawn = std::upper_bound(scratch->begin(), scratch->end(), uniform * sum);
  return drawn == scratch->end() ? likeliest : static_cast<int32_t>(drawn - scratch->begin());
}

template <typename S>
absl::StatusOr<std::string> Write(const v1::Job& job, const v1::Checkpoint& checkpoint,
                                  const Wish& wish) {
  data::TaskShape shape;
  shape.vocabulary = job.vocabulary_size();
  shape.outputs = job.vocabulary_size();
  shape.classification = true;
  nn::Network<S> network(NetworkConfigOf(job, shape), 1, 1);
  if (!FromBytes(checkpoint.weights(), network.weights())) {
    return absl::DataLossError("checkpoint: weights do not fit the job");
  }
  const ArithmeticMode mode;
  Batch batch = SingleTokenBatch();
  const auto read = [&](int32_t token) {
    batch.tokens[0] = token;
    network.Predict(batch);
    batch.restart[0] = 0;
  };
  for (const int32_t token : wish.prompt) read(token);
  RandomStream random(wish.seed, StreamOf("generate text"), 0);
  std::string text;
  std::vector<double> scratch;
  for (int32_t i = 0; i < wish.characters; ++i) {
    const int32_t token =
        Choose(network.output(0, 0), wish.temperature, random.NextUniform(), &scratch);
    data::AppendUtf8(static_cast<char32_t>(job.vocabulary(token)), &text);
    if (i + 1 < wish.characters) read(token);
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> GenerateText(const v1::Job& job, const v1::Checkpoint& checkpoint,
                                         const v1::GenerateRequest& request) {
  if (!job.task().has_language() || job.vocabulary().empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(job.name(), " does not learn a text: only language jobs can generate one"));
  }
  ASSIGN_OR_RETURN(const Wish wish, ReadWish(job, request));
  try {
    if (checkpoint.precision() == v1::Training::PRECISION_FLOAT64) {
      return Write<double>(job, checkpoint, wish);
    }
    return Write<float>(job, checkpoint, wish);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return absl::ResourceExhaustedError("the memory to run the model once more cannot be had");
}

}  // namespace gradwatch::train
