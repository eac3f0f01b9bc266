#include "server/train/ladder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace gradwatch::train {
namespace {

// Of the first loss: what is below it is no cause for alarm, however low the recent ones are.
constexpr double kFirstLossShare = 0.25;

void SaveOptional(const std::optional<double>& value, stats::StateWriter* writer) {
  writer->Int(value.has_value());
  writer->Double(value.value_or(0.0));
}

std::optional<double> LoadOptional(stats::StateReader* reader) {
  const bool has_value = reader->Int() != 0;
  const double value = reader->Double();
  return has_value ? std::optional<double>(value) : std::nullopt;
}

}  // namespace

double Ladder::LossLimit() const {
  return spec_.loss_factor() *
         std::max(estimates_.losses.Quantile(0.5), kFirstLossShare * *first_loss_);
}

std::string Ladder::WhatIsBad(double loss, double norm) const {
  if (spec_.loss_factor() > 0.0 && first_loss_.has_value() && loss > LossLimit()) {
    return absl::StrFormat("the loss, %.4g, passes %.4g: %g times %s", loss, LossLimit(),
                           spec_.loss_factor(),
                           estimates_.losses.Quantile(0.5) >= kFirstLossShare * *first_loss_
                               ? "the median of the last good losses"
                               : "a quarter of the first loss");
  }
  if (spec_.norm_factor() > 0.0 && estimates_.norms.size() > 0) {
    const double limit = spec_.norm_factor() * estimates_.norms.Quantile(1.0);
    if (norm > limit) {
      return absl::StrFormat(
          "the gradient norm, %.4g, passes %.4g: %g times the largest of the last good ones", norm,
          limit, spec_.norm_factor());
    }
  }
  return "";
}

void Ladder::Good(double loss, double norm) {
  if (!first_loss_.has_value()) first_loss_ = loss;
  estimates_.losses.Add(loss);
  estimates_.norms.Add(norm);
  ++good_in_a_row_;
  if (in_episode_ && good_in_a_row_ >= spec_.calm_steps()) in_episode_ = false;
}

Ladder::Action Ladder::Bad(bool rate_can_fall, bool has_checkpoint) {
  if (!in_episode_) {
    in_episode_ = true;
    rate_was_lowered_ = went_back_ = false;
    rate_before_episode_.reset();
    tolerated_ = 0;
  }
  good_in_a_row_ = 0;
  if (tolerated_ < spec_.skips_max()) {
    ++tolerated_;
    return Action::kSkip;
  }
  tolerated_ = 0;
  if (!rate_was_lowered_ && rate_can_fall && rate_cuts_ < spec_.rate_cuts_max()) {
    rate_was_lowered_ = true;
    ++rate_cuts_;
    return Action::kLowerRate;
  }
  if (has_checkpoint && rollbacks_ < spec_.rollbacks_max()) {
    went_back_ = true;
    ++rollbacks_;
    return Action::kRollBack;
  }
  return Action::kStop;
}

void Ladder::NoteRate(double before) {
  if (!rate_before_.has_value()) rate_before_ = before;
  rate_before_episode_ = before;
}

void Ladder::ForgetRate() {
  rate_before_.reset();
  rate_before_episode_.reset();
}

std::optional<double> Ladder::TakeBackRate() {
  if (rate_before_ == rate_before_episode_) rate_before_.reset();
  return std::exchange(rate_before_episode_, std::nullopt);
}

std::optional<double> Ladder::RateDue() const {
  const bool due = spec_.rate_restore_steps() > 0 && good_in_a_row_ >= spec_.rate_restore_steps();
  return due ? rate_before_ : std::nullopt;
}

// Untrained weights are normal at the first loss, not at a quarter of it.
void Ladder::Restore(const Estimates& estimates) {
  estimates_ = estimates;
  if (estimates_.losses.size() == 0 && first_loss_.has_value()) estimates_.losses.Add(*first_loss_);
}

void Ladder::SaveState(stats::StateWriter* writer) const {
  estimates_.losses.SaveState(writer);
  estimates_.norms.SaveState(writer);
  SaveOptional(first_loss_, writer);
  SaveOptional(rate_before_, writer);
  SaveOptional(rate_before_episode_, writer);
  for (const int64_t value : {good_in_a_row_, int64_t{in_episode_}, int64_t{rate_was_lowered_},
                              int64_t{went_back_}, tolerated_, rate_cuts_, rollbacks_}) {
    writer->Int(value);
  }
}

void Ladder::LoadState(stats::StateReader* reader) {
  estimates_.losses.LoadState(reader);
  estimates_.norms.LoadState(reader);
  first_loss_ = LoadOptional(reader);
  rate_before_ = LoadOptional(reader);
  rate_before_episode_ = LoadOptional(reader);
  good_in_a_row_ = reader->Int();
  in_episode_ = reader->Int() != 0;
  rate_was_lowered_ = reader->Int() != 0;
  went_back_ = reader->Int() != 0;
  tolerated_ = reader->Int();
  rate_cuts_ = reader->Int();
  rollbacks_ = reader->Int();
}

}  // namespace gradwatch::train
