#include "proto/support/grpc_status.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/support/errors.h"

namespace gradwatch {
namespace {

TEST(GrpcStatusTest, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(GrpcStatusTest, DetailsSurviveBothDirections) {
  const absl::Status status =
      WithRetryDelay(InvalidFields({{"model.layers", "0 is not in 1 to 8"}, {"seed", "missing"}}),
                     absl::Seconds(2));

  const grpc::Status wire = ToGrpcStatus(status);
  const absl::Status back = FromGrpcStatus(wire);

  EXPECT_EQ(wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(wire.error_message(), std::string(status.message()));
  EXPECT_EQ(back, status);
  ASSERT_EQ(FieldViolationsOf(back).size(), 2u);
  EXPECT_EQ(FieldViolationsOf(back)[0].field, "model.layers");
  EXPECT_EQ(ReasonOf(back), "INVALID_FIELD");
}

TEST(GrpcStatusTest, TrailerIsAGoogleRpcStatus) {
  const grpc::Status wire =
      ToGrpcStatus(ErrorWithReason(absl::StatusCode::kNotFound, "no job", "JOB_NOT_FOUND"));

  google::rpc::Status proto;
  ASSERT_TRUE(proto.ParseFromString(wire.error_details()));
  google::rpc::ErrorInfo info;
  ASSERT_EQ(proto.details_size(), 1);
  ASSERT_TRUE(proto.details(0).UnpackTo(&info));
  EXPECT_EQ(proto.code(), 5);
  EXPECT_EQ(proto.message(), "no job");
  EXPECT_EQ(info.reason(), "JOB_NOT_FOUND");
}

TEST(GrpcStatusTest, LongMessageIsCutBetweenCharacters) {
  std::string message;
  while (message.size() < 5000) message += "\xE2\x82\xAC";  // Three bytes each.

  const grpc::Status wire = ToGrpcStatus(absl::InternalError(message));

  EXPECT_LE(wire.error_message().size(), kGrpcMessageBytesMax);
  EXPECT_TRUE(absl::EndsWith(wire.error_message(), "\xE2\x82\xAC..."));
}

TEST(GrpcStatusTest, BytesThatAreNotUtf8BecomeQuestionMarks) {
  const grpc::Status wire =
      ToGrpcStatus(absl::InvalidArgumentError("a\xFF"
                                              "b\xC3\xA9\xC0\x80\xED\xA0\x80z\xE2\x82"));

  EXPECT_EQ(wire.error_message(), "a?b\xC3\xA9?????z??");
}

TEST(GrpcStatusTest, ManyViolationsFitIntoTheTrailerAndKeepTheReason) {
  std::vector<FieldViolation> violations;
  for (int i = 0; i < 500; ++i) {
    violations.push_back({absl::StrCat("rules[", i, "].threshold"), "NaN is not finite"});
  }

  const grpc::Status wire = ToGrpcStatus(InvalidFields(violations));
  const absl::Status back = FromGrpcStatus(wire);

  EXPECT_LE(wire.error_details().size(), kGrpcDetailsBytesMax);
  EXPECT_GT(FieldViolationsOf(back).size(), 20u);
  EXPECT_EQ(FieldViolationsOf(back)[0].field, "rules[0].threshold");
  EXPECT_EQ(ReasonOf(back), "INVALID_FIELD");
}

TEST(GrpcStatusTest, OneHugeDetailIsDroppedAndTheReasonStays) {
  const grpc::Status wire = ToGrpcStatus(InvalidFields({{"task", std::string(100'000, 'x')}}));

  EXPECT_LE(wire.error_details().size(), kGrpcDetailsBytesMax);
  EXPECT_EQ(ReasonOf(FromGrpcStatus(wire)), "INVALID_FIELD");
}

TEST(GrpcStatusTest, ForeignStatusWithoutOrWithBrokenDetailsKeepsItsMessage) {
  const grpc::Status plain(grpc::StatusCode::UNAVAILABLE, "gone");
  const grpc::Status broken(grpc::StatusCode::UNAVAILABLE, "gone", "\xFF\xFF\xFF");

  EXPECT_EQ(FromGrpcStatus(plain), absl::UnavailableError("gone"));
  EXPECT_EQ(FromGrpcStatus(broken), absl::UnavailableError("gone"));
}

TEST(GrpcStatusTest, UnknownCodeBecomesUnknown) {
  const grpc::Status odd(static_cast<grpc::StatusCode>(30), "odd");

  EXPECT_EQ(FromGrpcStatus(odd), absl::UnknownError("odd"));
}

}  // namespace
}  // namespace gradwatch
