#include "client/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/cpp/sha256.h"
#include "proto/support/errors.h"
#include "tests/unit/client/fake_server.h"

namespace gradwatch::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ClientTest : public testing::Test {
 protected:
  // Starts the server and connects.
  Client& Connect(ClientOptions options = {}) {
    server_.Start();
    options.server = server_.address();
    auto client = Client::Create(options);
    EXPECT_EQ(client.status(), absl::OkStatus());
    client_ = *std::move(client);
    return *client_;
  }

  FakeServer server_;
  std::unique_ptr<Client> client_;
};

v1::StreamStatsResponse StepMessage(int64_t step) {
  v1::StreamStatsResponse message;
  message.add_steps()->set_step(step);
  return message;
}

TEST_F(ClientTest, KeepsTheDetailsOfAnError) {
  server_.create_job = [](const v1::CreateJobRequest&) -> absl::StatusOr<v1::Job> {
    return InvalidFields({{"model.layers", "must be 1 to 8, is 9"}, {"seed", "bad"}});
  };

  const absl::StatusOr<v1::Job> job = Connect().CreateJob({});

  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(FieldViolationsOf(job.status()).size(), 2u);
  EXPECT_EQ(FieldViolationsOf(job.status())[0].field, "model.layers");
  EXPECT_EQ(ReasonOf(job.status()), "INVALID_FIELD");
}

TEST_F(ClientTest, MakesCreationSafeToRepeat) {
  std::vector<std::string> ids;
  server_.create_job = [&ids](const v1::CreateJobRequest& request) -> absl::StatusOr<v1::Job> {
    ids.push_back(request.request_id());
    if (ids.size() < 3) return absl::UnavailableError("not yet");
    v1::Job job;
    job.set_name("jobs/x");
    return job;
  };

  const absl::StatusOr<v1::Job> job = Connect().CreateJob({});

  ASSERT_EQ(job.status(), absl::OkStatus());
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(ids[0].size(), 32u);
  EXPECT_EQ(ids[0], ids[2]);
}

TEST_F(ClientTest, DoesNotRepeatWhatChangesAJob) {
  int calls = 0;
  server_.pause_job =
      [&calls](const v1::PauseJobRequest&) -> absl::StatusOr<v1::JobActionResponse> {
    ++calls;
    return absl::UnavailableError("no");
  };

  EXPECT_EQ(Connect().PauseJob({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(calls, 1);
}

TEST_F(ClientTest, TellsThatThereIsNoServer) {
  server_.Start();
  const std::string address = server_.address();
  server_.Stop();
  ClientOptions options;
  options.server = address;
  const auto client = Client::Create(options);

  EXPECT_EQ((*client)->GetJob({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, EndsACallAfterItsTime) {
  // The handler outlives the call, and perhaps this function.
  const auto done = std::make_shared<std::atomic<bool>>(false);
  server_.get_job = [done](const v1::GetJobRequest&) -> absl::StatusOr<v1::Job> {
    while (!*done) std::this_thread::yield();
    return v1::Job();
  };
  ClientOptions options;
  options.timeout = absl::Milliseconds(50);

  EXPECT_EQ(Connect(options).GetJob({}).status().code(), absl::StatusCode::kDeadlineExceeded);
  *done = true;
}

TEST_F(ClientTest, IsCancelledWhileItWaits) {
  ClientOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  server_.stream_stats = [cancellation = options.cancellation](const v1::StreamStatsRequest&,
                                                               const auto& write) {
    write(StepMessage(0));
    cancellation->Cancel();
    while (write(StepMessage(1))) {
    }
    return absl::OkStatus();
  };
  const auto reader = Connect(options).StreamStats({}, {});
  v1::StreamStatsResponse message;

  while (reader->Next(&message)) {
  }

  EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, ResumesAStreamWithTheNextStep) {
  std::vector<int64_t> asked;
  server_.stream_stats = [&asked](const v1::StreamStatsRequest& request, const auto& write) {
    asked.push_back(request.from_step());
    if (asked.size() == 3) return absl::OkStatus();
    v1::StreamStatsResponse folded;
    folded.mutable_folded()->set_last_step(request.from_step() + 4);
    folded.mutable_folded()->set_count(5);
    write(StepMessage(request.from_step()));
    write(folded);
    return absl::UnavailableError("the server stops");
  };
  v1::StreamStatsRequest request;
  request.set_from_step(10);
  int reconnects = 0;
  StreamOptions options;
  options.reconnect = true;
  options.on_reconnect = [&reconnects](const absl::Status&) { ++reconnects; };
  const auto reader = Connect().StreamStats(request, options);
  v1::StreamStatsResponse message;
  int messages = 0;

  while (reader->Next(&message)) ++messages;

  EXPECT_EQ(reader->Finish(), absl::OkStatus());
  EXPECT_THAT(asked, ElementsAre(10, 15, 20));
  EXPECT_EQ(messages, 4);
  EXPECT_EQ(reconnects, 2);
}

TEST_F(ClientTest, SurvivesARestartOfTheServer) {
  std::atomic<int> streams = 0;
  server_.stream_stats = [&streams](const v1::StreamStatsRequest& request, const auto& write) {
    if (++streams == 2) {
      write(StepMessage(request.from_step()));
      return absl::OkStatus();
    }
    while (write(StepMessage(request.from_step()))) std::this_thread::yield();
    return absl::CancelledError("gone");
  };
  StreamOptions options;
  options.reconnect = true;
  const auto reader = Connect().StreamStats({}, options);
  v1::StreamStatsResponse message;
  ASSERT_TRUE(reader->Next(&message));

  server_.Stop();
  server_.Start();
  while (reader->Next(&message)) {
  }

  EXPECT_EQ(reader->Finish(), absl::OkStatus());
  EXPECT_EQ(streams, 2);
}

TEST_F(ClientTest, DoesNotReconnectUnasked) {
  server_.stream_stats = [](const v1::StreamStatsRequest&, const auto&) {
    return absl::UnavailableError("gone");
  };
  const auto reader = Connect().StreamStats({}, {});
  v1::StreamStatsResponse message;

  EXPECT_FALSE(reader->Next(&message));
  EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, StopsReconnectingWhenTheTimeIsOver) {
  server_.stream_stats = [](const v1::StreamStatsRequest&, const auto&) {
    return absl::UnavailableError("gone");
  };
  StreamOptions options;
  options.reconnect = true;
  options.deadline = absl::Now() + absl::Milliseconds(300);
  const auto reader = Connect().StreamStats({}, options);
  v1::StreamStatsResponse message;

  EXPECT_FALSE(reader->Next(&message));
  EXPECT_EQ(reader->Finish().code(), absl::StatusCode::kDeadlineExceeded);
}

class UploadTest : public ClientTest {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "/upload_" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::ofstream(path_, std::ios::binary) << bytes_;
  }

  const std::string bytes_ = std::string(600'000, 'x') + "end";
  std::string path_;
};

TEST_F(UploadTest, SendsHeaderAndBytes) {
  std::string received;
  v1::UploadDatasetRequest::Header header;
  server_.upload = [&](const std::vector<v1::UploadDatasetRequest>& parts) {
    header = parts.at(0).header();
    for (const auto& part : parts) received += part.chunk();
    v1::Dataset dataset;
    dataset.set_name("datasets/book");
    return absl::StatusOr<v1::Dataset>(dataset);
  };

  const auto result = Connect().UploadFile(
      {.path = path_, .kind = v1::Dataset::KIND_TEXT, .dataset_id = "book", .display_name = "B"},
      false);

  ASSERT_EQ(result.status(), absl::OkStatus());
  EXPECT_EQ(result->dataset.name(), "datasets/book");
  EXPECT_FALSE(result->reused);
  EXPECT_EQ(received, bytes_);
  EXPECT_EQ(header.dataset_id(), "book");
  EXPECT_EQ(header.sha256(), Sha256(bytes_));
  EXPECT_EQ(header.size_bytes(), static_cast<int64_t>(bytes_.size()));
}

TEST_F(UploadTest, FindsTheSameBytes) {
  server_.list_datasets = [this](const v1::ListDatasetsRequest& request) {
    v1::ListDatasetsResponse response;
    v1::Dataset* const dataset = response.add_datasets();
    dataset->set_sha256(Sha256(bytes_));
    // The first page has them as a table, the second as a text.
    dataset->set_kind(request.page_token().empty() ? v1::Dataset::KIND_TABLE
                                                   : v1::Dataset::KIND_TEXT);
    dataset->set_name(request.page_token().empty() ? "datasets/table" : "datasets/text");
    if (request.page_token().empty()) response.set_next_page_token("2");
    return absl::StatusOr<v1::ListDatasetsResponse>(response);
  };

  const auto result = Connect().UploadFile(
      {.path = path_, .kind = v1::Dataset::KIND_TEXT, .dataset_id = {}, .display_name = {}}, true);

  ASSERT_EQ(result.status(), absl::OkStatus());
  EXPECT_TRUE(result->reused);
  EXPECT_EQ(result->dataset.name(), "datasets/text");
}

TEST_F(UploadTest, ReturnsTheServersRefusal) {
  server_.upload = [](const std::vector<v1::UploadDatasetRequest>&) -> absl::StatusOr<v1::Dataset> {
    return absl::DataLossError("the checksum differs");
  };

  const auto result = Connect().UploadFile(
      {.path = path_, .kind = v1::Dataset::KIND_TEXT, .dataset_id = {}, .display_name = {}}, false);

  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(UploadTest, NamesAFileThatIsNotThere) {
  const auto result = Connect().UploadFile(
      {.path = "/nowhere", .kind = v1::Dataset::KIND_TEXT, .dataset_id = {}, .display_name = {}},
      false);

  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("/nowhere"));
}

TEST_F(ClientTest, AsksForHealth) {
  Client& client = Connect();

  EXPECT_EQ(client.CheckHealth(""), absl::OkStatus());
  EXPECT_EQ(client.CheckHealth("no.such.Service").code(), absl::StatusCode::kNotFound);
}

TEST(ClientCreateTest, ChecksTheTlsFiles) {
  ClientOptions options;
  options.use_tls = true;
  options.tls.ca_file = "/nowhere.pem";
  EXPECT_EQ(Client::Create(options).status().code(), absl::StatusCode::kNotFound);

  options.tls = {.ca_file = {}, .cert_file = "cert.pem", .key_file = {}};
  EXPECT_EQ(Client::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradwatch::client
