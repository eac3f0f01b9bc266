#include "server/rpc/stream_hub.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "server/base/check.h"

namespace gradwatch::rpc {

StreamHub::StreamHub(const StreamOptions& options, metrics::Metrics* metrics)
    : options_(options),
      metrics_(metrics),
      pool_(options.threads, static_cast<size_t>(options.streams_max)),
      ticker_([this] { TickUntilStopped(); }) {}

StreamHub::~StreamHub() {
  {
    MutexLock lock(&mu_);
    GRADWATCH_CHECK(streams_.empty());
    stopping_ = true;
  }
  ticker_.join();
}

absl::Status StreamHub::Add(Stream* stream) {
  MutexLock lock(&mu_);
  if (ended_.has_value()) return *ended_;
  if (static_cast<int>(streams_.size()) >= options_.streams_max) {
    return WithRetryDelay(
        ErrorWithReason(absl::StatusCode::kResourceExhausted,
                        absl::StrCat("the server has ", options_.streams_max,
                                     " streams open, which is its limit; close some"),
                        "TOO_MANY_STREAMS", {{"streams_max", absl::StrCat(options_.streams_max)}}),
        absl::Seconds(5));
  }
  streams_.insert(stream);
  metrics_->StreamOpened();
  return absl::OkStatus();
}

void StreamHub::Remove(Stream* stream) {
  MutexLock lock(&mu_);
  if (streams_.erase(stream) > 0) metrics_->StreamClosed();
}

void StreamHub::EndAll(const absl::Status& status) {
  MutexLock lock(&mu_);
  ended_ = status;
  for (Stream* stream : streams_) stream->End(status);
}

void StreamHub::TickUntilStopped() {
  const absl::Duration period =
      std::clamp(options_.heartbeat / 4, absl::Milliseconds(1), absl::Seconds(1));
  MutexLock lock(&mu_);
  while (!mu_.AwaitFor([this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_; }, period)) {
    const Stream::Time now = std::chrono::steady_clock::now();
    for (Stream* stream : streams_) stream->Tick(now);
  }
}

}  // namespace gradwatch::rpc
