#include "client/cpp/sha256.h"

#include <gtest/gtest.h>

#include <fstream>

namespace gradwatch::client {
namespace {

// The values of FIPS 180-4's examples.
TEST(Sha256Test, GivesTheStandardsValues) {
  EXPECT_EQ(Sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DigestFileTest, ReadsALargeFileInPieces) {
  const std::string path = testing::TempDir() + "/digest_large";
  const std::string bytes(3 * (256 << 10) + 1, 'a');
  std::ofstream(path, std::ios::binary) << bytes;

  const absl::StatusOr<FileDigest> digest = DigestFile(path);

  ASSERT_EQ(digest.status(), absl::OkStatus());
  EXPECT_EQ(digest->sha256, Sha256(bytes));
  EXPECT_EQ(digest->size_bytes, static_cast<int64_t>(bytes.size()));
}

TEST(DigestFileTest, RefusesWhatIsNoFile) {
  EXPECT_EQ(DigestFile("/nowhere").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DigestFile(testing::TempDir()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradwatch::client
