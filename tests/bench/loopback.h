#ifndef GRADWATCH_TESTS_BENCH_LOOPBACK_H_
#define GRADWATCH_TESTS_BENCH_LOOPBACK_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/jobs/job_manager.h"
#include "server/rpc/server.h"

// Both ends of the benchmarks that go over a socket. Messages stay bytes at the client's end, so
// that it costs the same whoever serves.

namespace gradwatch::bench {

grpc::ByteBuffer BytesOf(const google::protobuf::MessageLite& message);
std::string TextOf(const grpc::ByteBuffer& bytes);

// CPU that this process has used: both ends of the wire.
double ProcessCpuSeconds();

// Channels to one port of this machine, each with a connection of its own.
class Connections {
 public:
  Connections(int port, int count);
  grpc::GenericStub* stub(int i) { return stubs_[static_cast<size_t>(i) % stubs_.size()].get(); }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
};

// Reads streams of /gradwatch.v1.StatsService/StreamStats until the server ends them.
class StreamReaders {
 public:
  // Called with each message, one at a time for each stream.
  using OnMessage = std::function<void(const grpc::ByteBuffer& message)>;

  // Opens `count` streams.
  StreamReaders(Connections* connections, const grpc::ByteBuffer& request, int count,
                OnMessage on_message = nullptr);
  // Ends what is still open.
  ~StreamReaders();

  // Returns when all have ended; whether all did without an error.
  bool AwaitEnd();
  int64_t messages() const { return messages_; }

 private:
  class Reader;
  void Ended(bool ok);

  const OnMessage on_message_;
  std::atomic<int64_t> messages_{0};
  Mutex mu_;
  int open_ ABSL_GUARDED_BY(mu_) = 0;
  bool ok_ ABSL_GUARDED_BY(mu_) = true;
  std::vector<std::unique_ptr<Reader>> readers_;
};

// The yardstick: a gRPC server of a few lines. StreamStats writes messages that exist already, as
// fast as they are taken; CreateJob answers with bytes that exist already.
class BareServer {
 public:
  BareServer(std::vector<grpc::ByteBuffer> stream, grpc::ByteBuffer answer);
  ~BareServer();
  int port() const { return port_; }

 private:
  class StatsService;
  class JobService;
  const std::unique_ptr<StatsService> stats_;
  const std::unique_ptr<JobService> jobs_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// The real server with its jobs, on a free port.
class RealServer {
 public:
  RealServer(jobs::JobLimits limits, jobs::TrainerFactory trainers);
  ~RealServer();
  int port() const { return server_->port(); }
  jobs::JobManager* jobs() { return &jobs_; }
  // Creates jobs/{id} and returns when it is final.
  void RunJob(v1::CreateJobRequest request);

 private:
  RealClock clock_;
  jobs::DatasetStore datasets_;
  jobs::JobManager jobs_;
  metrics::Metrics metrics_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_LOOPBACK_H_
