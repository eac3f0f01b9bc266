#include "tests/bench/loopback.h"

#include <time.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "gradwatch/v1/job_service.grpc.pb.h"
#include "gradwatch/v1/stats_service.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server_builder.h"
#include "server/base/check.h"

namespace gradwatch::bench {

grpc::ByteBuffer BytesOf(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

std::string TextOf(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  GRADWATCH_CHECK(bytes.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

double ProcessCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Connections::Connections(int port, int count) {
  for (int i = 0; i < count; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    stubs_.push_back(std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(), arguments)));
  }
}

class StreamReaders::Reader final
    : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Reader(StreamReaders* all, grpc::GenericStub* stub, const grpc::ByteBuffer& request)
      : all_(all), request_(request) {
    stub->PrepareBidiStreamingCall(&context_, "/gradwatch.v1.StatsService/StreamStats", {}, this);
    StartWriteLast(&request_, grpc::WriteOptions());
    StartRead(&message_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    all_->messages_.fetch_add(1, std::memory_order_relaxed);
    if (all_->on_message_) all_->on_message_(message_);
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override { all_->Ended(status.ok()); }

 private:
  StreamReaders* const all_;
  grpc::ByteBuffer request_;
  grpc::ClientContext context_;
  grpc::ByteBuffer message_;
};

StreamReaders::StreamReaders(Connections* connections, const grpc::ByteBuffer& request, int count,
                             OnMessage on_message)
    : on_message_(std::move(on_message)), open_(count) {
  for (int i = 0; i < count; ++i) {
    readers_.push_back(std::make_unique<Reader>(this, connections->stub(i), request));
  }
}

StreamReaders::~StreamReaders() {
  for (const auto& reader : readers_) reader->Cancel();
  AwaitEnd();
}

bool StreamReaders::AwaitEnd() {
  MutexLock lock(&mu_);
  mu_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return open_ == 0; });
  return ok_;
}

void StreamReaders::Ended(bool ok) {
  MutexLock lock(&mu_);
  ok_ = ok_ && ok;
  --open_;
}

class BareServer::StatsService final
    : public v1::StatsService::WithRawCallbackMethod_StreamStats<v1::StatsService::Service> {
 public:
  explicit StatsService(std::vector<grpc::ByteBuffer> messages) : messages_(std::move(messages)) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamStats(
      grpc::CallbackServerContext* /*context*/, const grpc::ByteBuffer* /*request*/) override {
    class Writer final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
     public:
      explicit Writer(const std::vector<grpc::ByteBuffer>& messages) : messages_(messages) {
        OnWriteDone(true);
      }
      void OnWriteDone(bool ok) override {
        if (!ok || next_ == messages_.size()) return Finish(grpc::Status::OK);
        StartWrite(&messages_[next_++]);
      }
      void OnDone() override { delete this; }

     private:
      const std::vector<grpc::ByteBuffer>& messages_;
      size_t next_ = 0;
    };
    return new Writer(messages_);
  }

 private:
  const std::vector<grpc::ByteBuffer> messages_;
};

class BareServer::JobService final
    : public v1::JobService::WithRawCallbackMethod_CreateJob<v1::JobService::Service> {
 public:
  explicit JobService(grpc::ByteBuffer answer) : answer_(std::move(answer)) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* /*request*/,
                                      grpc::ByteBuffer* response) override {
    *response = answer_;
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const grpc::ByteBuffer answer_;
};

BareServer::BareServer(std::vector<grpc::ByteBuffer> stream, grpc::ByteBuffer answer)
    : stats_(std::make_unique<StatsService>(std::move(stream))),
      jobs_(std::make_unique<JobService>(std::move(answer))) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(stats_.get());
  builder.RegisterService(jobs_.get());
  server_ = builder.BuildAndStart();
  GRADWATCH_CHECK(server_ != nullptr);
}

BareServer::~BareServer() { server_->Shutdown(); }

RealServer::RealServer(jobs::JobLimits limits, jobs::TrainerFactory trainers)
    : datasets_(jobs::DatasetLimits(), &clock_),
      jobs_(limits, &datasets_, &clock_, std::move(trainers)),
      metrics_(
          {}, {}, [this] { return metrics::ReadJobs(jobs_); }, &clock_) {
  rpc::ServerOptions options;
  options.listen = "127.0.0.1:0";
  auto server = rpc::Server::Start(options, &jobs_, &datasets_, &metrics_);
  GRADWATCH_CHECK(server.ok());
  server_ = *std::move(server);
  server_->SetReady(true);
}

RealServer::~RealServer() { server_->Shutdown(absl::Seconds(1)); }

void RealServer::RunJob(v1::CreateJobRequest request) {
  const auto job = jobs_.Create(request);
  GRADWATCH_CHECK(job.ok());
  Mutex mu;
  bool changed = true;
  const auto reader = jobs_.OpenJob(job->name(), [&] {
    MutexLock lock(&mu);
    changed = true;
  });
  v1::Job seen;
  while (seen.state() != v1::Job::STATE_SUCCEEDED) {
    {
      MutexLock lock(&mu);
      mu.Await([&changed] { return changed; });
      changed = false;
    }
    GRADWATCH_CHECK((*reader)->Read(&seen).ok());
    GRADWATCH_CHECK(seen.state() != v1::Job::STATE_FAILED);
  }
}

}  // namespace gradwatch::bench
