#include "client/cli/output_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace gradwatch::cli {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              ("output_file_" +
               std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  size_t Files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

std::string Content(const fs::path& path) {
  std::ostringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

TEST_F(OutputFileTest, AppearsWhenItIsComplete) {
  const fs::path path = folder_ / "out";
  auto file = OutputFile::Create(path.string());
  ASSERT_EQ(file.status(), absl::OkStatus());

  EXPECT_EQ((*file)->Write("hello "), absl::OkStatus());
  EXPECT_EQ((*file)->Write("world"), absl::OkStatus());
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ((*file)->Commit(), absl::OkStatus());

  EXPECT_EQ(Content(path), "hello world");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(OutputFileTest, LeavesTheOldFileWithoutCommit) {
  const fs::path path = folder_ / "out";
  std::ofstream(path) << "old";

  {
    auto file = OutputFile::Create(path.string());
    ASSERT_EQ(file.status(), absl::OkStatus());
    EXPECT_EQ((*file)->Write("new"), absl::OkStatus());
  }

  EXPECT_EQ(Content(path), "old");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(OutputFileTest, RefusesFoldersAndMissingOnes) {
  EXPECT_EQ(OutputFile::Create(folder_.string()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OutputFile::Create((folder_ / "no" / "out").string()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradwatch::cli
