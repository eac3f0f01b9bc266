#include "server/jobs/dataset_store.h"

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/support/errors.h"
#include "tests/unit/jobs/dataset_testing.h"
#include "tests/unit/jobs/fake_clock.h"

namespace gradwatch::jobs {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using v1::Dataset;

class DatasetStoreTest : public testing::Test {
 protected:
  FakeClock clock_;
  DatasetStore store_{DatasetLimits(), &clock_};
};

TEST_F(DatasetStoreTest, KeepsWhatWasUploaded) {
  const auto uploaded = UploadAll(&store_, "my-text", Dataset::KIND_TEXT, "hello world");

  ASSERT_TRUE(uploaded.ok()) << uploaded.status();
  EXPECT_EQ(uploaded->name(), "datasets/my-text");
  EXPECT_EQ(uploaded->size_bytes(), 11);
  EXPECT_EQ(uploaded->characters(), 11);
  EXPECT_EQ(uploaded->vocabulary_size(), 8);
  EXPECT_EQ(uploaded->create_time().seconds(), 1'700'000'000);
  const auto got = store_.Get("datasets/my-text");
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->SerializeAsString(), uploaded->SerializeAsString());
  const auto content = store_.Content("datasets/my-text");
  ASSERT_TRUE(content.ok());
  EXPECT_EQ((*content)->tokens.size(), 11u);
}

TEST_F(DatasetStoreTest, KnowsTheChecksumOfTheStandard) {
  // FIPS 180-2, appendix B.1.
  const auto uploaded =
      UploadAll(&store_, "abc", Dataset::KIND_TEXT, "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");

  ASSERT_TRUE(uploaded.ok()) << uploaded.status();
}

TEST_F(DatasetStoreTest, MakesAnIdWhenNoneIsAskedFor) {
  const auto first = UploadAll(&store_, "", Dataset::KIND_TEXT, "ab");
  const auto second = UploadAll(&store_, "", Dataset::KIND_TEXT, "ab");

  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(second.ok());
  EXPECT_NE(first->name(), second->name());
  EXPECT_TRUE(store_.Get(first->name()).ok());
}

TEST_F(DatasetStoreTest, ListsNewestFirstInPages) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(UploadAll(&store_, absl::StrCat("d", i), Dataset::KIND_TEXT, "ab").ok());
  }
  std::vector<std::string> names;
  v1::ListDatasetsRequest request;
  request.set_page_size(2);

  for (;;) {
    const auto page = store_.List(request);
    ASSERT_TRUE(page.ok());
    for (const auto& dataset : page->datasets()) names.push_back(dataset.name());
    if (page->next_page_token().empty()) break;
    request.set_page_token(page->next_page_token());
  }

  EXPECT_THAT(names, testing::ElementsAre("datasets/d4", "datasets/d3", "datasets/d2",
                                          "datasets/d1", "datasets/d0"));
}

TEST_F(DatasetStoreTest, RefusesBadPages) {
  v1::ListDatasetsRequest negative;
  negative.set_page_size(-1);
  v1::ListDatasetsRequest garbage;
  garbage.set_page_token("garbage!");

  const auto size = store_.List(negative);
  const auto token = store_.List(garbage);

  EXPECT_EQ(size.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolationsOf(size.status()).at(0).field, "page_size");
  EXPECT_EQ(token.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolationsOf(token.status()).at(0).field, "page_token");
}

TEST_F(DatasetStoreTest, RefusesAnIdThatIsTaken) {
  ASSERT_TRUE(UploadAll(&store_, "taken", Dataset::KIND_TEXT, "ab").ok());

  const auto again = UploadAll(&store_, "taken", Dataset::KIND_TEXT, "other");

  EXPECT_EQ(again.status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(again.status()), "DATASET_EXISTS");
}

TEST_F(DatasetStoreTest, TheSecondOfTwoUploadsOfOneIdLoses) {
  const auto header = HeaderOf("same", Dataset::KIND_TEXT, "ab");
  auto first = store_.StartUpload(header);
  auto second = store_.StartUpload(header);
  ASSERT_TRUE((*first)->Add("ab").ok());
  ASSERT_TRUE((*second)->Add("ab").ok());

  EXPECT_TRUE((*first)->Finish().ok());
  EXPECT_EQ((*second)->Finish().status().code(), StatusCode::kAlreadyExists);
}

TEST_F(DatasetStoreTest, KeepsADataSetWhileAJobUsesIt) {
  ASSERT_TRUE(UploadAll(&store_, "used", Dataset::KIND_TEXT, "ab").ok());
  ASSERT_TRUE(store_.AddUse("datasets/used").ok());

  const absl::Status refused = store_.Delete("datasets/used");
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused), "DATASET_IN_USE");
  EXPECT_EQ(store_.Get("datasets/used")->jobs_using(), 1);

  store_.DropUse("datasets/used");
  EXPECT_TRUE(store_.Delete("datasets/used").ok());
  EXPECT_EQ(store_.Get("datasets/used").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_.Delete("datasets/used").code(), StatusCode::kNotFound);
  EXPECT_EQ(store_.AddUse("datasets/used").code(), StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(store_.Content("datasets/used").status()), "DATASET_NOT_FOUND");
}

TEST(DatasetStoreLimitsTest, GivesTheRoomOfAnAbandonedUploadBack) {
  FakeClock clock;
  DatasetLimits limits;
  limits.total_bytes_max = 10;
  DatasetStore store(limits, &clock);

  auto upload = store.StartUpload(HeaderOf("a", Dataset::KIND_TEXT, "12345678"));
  ASSERT_TRUE(upload.ok());
  const auto refused = store.StartUpload(HeaderOf("b", Dataset::KIND_TEXT, "12345678"));
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("10"));
  upload->reset();

  EXPECT_TRUE(UploadAll(&store, "b", Dataset::KIND_TEXT, "12345678").ok());
  EXPECT_EQ(UploadAll(&store, "c", Dataset::KIND_TEXT, "1234").status().code(),
            StatusCode::kResourceExhausted);
  ASSERT_TRUE(store.Delete("datasets/b").ok());
  EXPECT_TRUE(UploadAll(&store, "c", Dataset::KIND_TEXT, "1234").ok());
}

TEST(DatasetStoreLimitsTest, BoundsUploadsUnderWayAndDataSets) {
  FakeClock clock;
  DatasetLimits limits;
  limits.uploads_max = 1;
  limits.datasets_max = 1;
  DatasetStore store(limits, &clock);

  auto upload = store.StartUpload(HeaderOf("a", Dataset::KIND_TEXT, "ab"));
  const auto second = store.StartUpload(HeaderOf("b", Dataset::KIND_TEXT, "ab"));
  EXPECT_EQ(second.status().code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE((*upload)->Add("ab").ok());
  ASSERT_TRUE((*upload)->Finish().ok());
  upload->reset();

  const auto third = store.StartUpload(HeaderOf("c", Dataset::KIND_TEXT, "ab"));
  EXPECT_EQ(third.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(third.status().message()), HasSubstr("at most 1"));
}

TEST_F(DatasetStoreTest, TakesUploadsFromManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      for (int j = 0; j < 20; ++j) {
        const std::string id = absl::StrCat("t", i, "-", j);
        ASSERT_TRUE(UploadAll(&store_, id, Dataset::KIND_TEXT, "abc").ok());
        ASSERT_TRUE(store_.List({}).ok());
      }
    });
  }
  for (auto& thread : threads) thread.join();

  v1::ListDatasetsRequest request;
  request.set_page_size(1000);
  EXPECT_EQ(store_.List(request)->datasets_size(), 80);
}

// --- Bad uploads: the fitting code and field, and nothing is kept.

struct BadUpload {
  std::string name;
  std::string id = "x";
  Dataset::Kind kind = Dataset::KIND_TEXT;
  std::string bytes = "some text";
  std::string display_name;
  // Applied to the header that fits the bytes.
  std::function<void(v1::UploadDatasetRequest::Header*)> spoil;
  StatusCode code = StatusCode::kInvalidArgument;
  std::string field;
  // What the message says.
  std::string says;
};

class BadUploadTest : public testing::TestWithParam<BadUpload> {};

TEST_P(BadUploadTest, IsRefusedAndNothingIsKept) {
  const BadUpload& bad = GetParam();
  FakeClock clock;
  DatasetLimits limits;
  limits.bytes_max = 1 << 20;
  DatasetStore store(limits, &clock);
  v1::UploadDatasetRequest::Header header = HeaderOf(bad.id, bad.kind, bad.bytes);
  header.set_display_name(bad.display_name);
  if (bad.spoil) bad.spoil(&header);

  const auto status = Send(&store, header, bad.bytes).status();

  EXPECT_EQ(status.code(), bad.code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(bad.says));
  if (bad.code == StatusCode::kInvalidArgument) {
    ASSERT_FALSE(FieldViolationsOf(status).empty()) << status;
    EXPECT_EQ(FieldViolationsOf(status)[0].field, bad.field);
  }
  EXPECT_EQ(store.List({})->datasets_size(), 0);
  EXPECT_TRUE(UploadAll(&store, "good", Dataset::KIND_TEXT, "good text").ok());
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadUploadTest,
    testing::Values(
        BadUpload{.name = "IdWithSlash", .id = "a/b", .field = "header.dataset_id", .says = "a/b"},
        BadUpload{.name = "IdThatClimbs", .id = "../etc", .field = "header.dataset_id"},
        BadUpload{.name = "IdUpperCase", .id = "Text", .field = "header.dataset_id"},
        BadUpload{.name = "IdTooLong", .id = std::string(64, 'a'), .field = "header.dataset_id"},
        BadUpload{.name = "NoKind",
                  .kind = Dataset::KIND_UNSPECIFIED,
                  .field = "header.kind",
                  .says = "KIND_TEXT"},
        BadUpload{.name = "UnknownKind",
                  .kind = static_cast<Dataset::Kind>(99),
                  .field = "header.kind",
                  .says = "99"},
        BadUpload{.name = "DisplayNameTooLong",
                  .display_name = std::string(129, 'x'),
                  .field = "header.display_name",
                  .says = "128"},
        BadUpload{.name = "NoChecksum",
                  .spoil = [](auto* h) { h->clear_sha256(); },
                  .field = "header.sha256"},
        BadUpload{.name = "ChecksumUpperCase",
                  .spoil = [](auto* h) { h->set_sha256(std::string(64, 'A')); },
                  .field = "header.sha256"},
        BadUpload{.name = "WrongChecksum",
                  .spoil = [](auto* h) { h->set_sha256(std::string(64, '0')); },
                  .code = StatusCode::kDataLoss,
                  .says = "upload again"},
        BadUpload{.name = "NoSize",
                  .spoil = [](auto* h) { h->set_size_bytes(0); },
                  .field = "header.size_bytes",
                  .says = "0"},
        BadUpload{.name = "NegativeSize",
                  .spoil = [](auto* h) { h->set_size_bytes(-5); },
                  .field = "header.size_bytes",
                  .says = "-5"},
        BadUpload{.name = "TooLarge",
                  .spoil = [](auto* h) { h->set_size_bytes(1 << 30); },
                  .code = StatusCode::kResourceExhausted,
                  .says = "1048576"},
        BadUpload{.name = "FewerBytesThanAnnounced",
                  .spoil = [](auto* h) { h->set_size_bytes(100); },
                  .field = "header.size_bytes",
                  .says = "100"},
        BadUpload{.name = "MoreBytesThanAnnounced",
                  .spoil = [](auto* h) { h->set_size_bytes(3); },
                  .field = "header.size_bytes",
                  .says = "announced 3"},
        BadUpload{.name = "EmptyText", .bytes = "", .field = "header.size_bytes"},
        BadUpload{.name = "TextOfOneCharacter", .bytes = "aaaa", .field = "chunk"},
        BadUpload{.name = "TextNotUtf8", .bytes = "abc\xff\xfe", .field = "chunk", .says = "UTF-8"},
        BadUpload{.name = "TextInLatin1", .bytes = "caf\xe9 au lait", .field = "chunk"},
        BadUpload{.name = "TextWithNul", .bytes = std::string("a\0b", 3), .field = "chunk"},
        BadUpload{.name = "TableWithAHole",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "a,b\n1,2\n3\n",
                  .field = "chunk",
                  .says = "row 2"},
        BadUpload{.name = "TableWithTooManyCells",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "a,b\n1,2,3\n",
                  .field = "chunk",
                  .says = "row 1"},
        BadUpload{.name = "TableWithoutRows",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "a,b\n",
                  .field = "chunk"},
        BadUpload{.name = "TableWithoutHeader",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "1,2\n3,4\n",
                  .field = "chunk"},
        BadUpload{.name = "TableWithOneNameTwice",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "a,a\n1,2\n",
                  .field = "chunk"},
        BadUpload{.name = "TableWithOpenQuote",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "a,b\n\"1,2\n",
                  .field = "chunk"},
        BadUpload{.name = "TableNotUtf8",
                  .kind = Dataset::KIND_TABLE,
                  .bytes = "a,b\n1,\xff\n",
                  .field = "chunk"}),
    [](const auto& tested) { return tested.param.name; });

TEST(BadUploadListTest, NamesEveryBadFieldOfAHeaderAtOnce) {
  FakeClock clock;
  DatasetStore store(DatasetLimits(), &clock);
  v1::UploadDatasetRequest::Header header;
  header.set_dataset_id("No Good");
  header.set_size_bytes(-1);

  const auto upload = store.StartUpload(header);

  std::vector<std::string> fields;
  for (const auto& violation : FieldViolationsOf(upload.status()))
    fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::ElementsAre("header.dataset_id", "header.kind", "header.sha256",
                                           "header.size_bytes"));
}

TEST(BadUploadListTest, RefusesAChunkThatIsTooLarge) {
  FakeClock clock;
  DatasetStore store(DatasetLimits(), &clock);
  const std::string bytes((1 << 20) + 1, 'a');
  auto upload = store.StartUpload(HeaderOf("x", Dataset::KIND_TEXT, bytes));
  ASSERT_TRUE(upload.ok());

  const absl::Status status = (*upload)->Add(bytes);

  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolationsOf(status)[0].field, "chunk");
}

}  // namespace
}  // namespace gradwatch::jobs
