#include "proto/support/closest_name.h"

#include <gtest/gtest.h>

namespace gradwatch {
namespace {

const std::vector<std::string> kCommands = {"submit", "list", "watch", "datasets", "hidden_units"};

TEST(ClosestNameTest, FindsSwapsAndSlips) {
  EXPECT_EQ(ClosestName("sumbit", kCommands), "submit");
  EXPECT_EQ(ClosestName("wach", kCommands), "watch");
  EXPECT_EQ(ClosestName("dataset", kCommands), "datasets");
}

TEST(ClosestNameTest, ForgivesCaseAndDashes) {
  EXPECT_EQ(ClosestName("Hidden-Units", kCommands), "hidden_units");
}

TEST(ClosestNameTest, FindsTheOnlyLongerName) {
  EXPECT_EQ(ClosestName("hidden", kCommands), "hidden_units");
}

TEST(ClosestNameTest, DoesNotGuess) {
  EXPECT_EQ(ClosestName("frobnicate", kCommands), "");
  EXPECT_EQ(ClosestName("", kCommands), "");
  EXPECT_EQ(DidYouMean("frobnicate", kCommands), "");
}

TEST(ClosestNameTest, MakesAPhrase) {
  EXPECT_EQ(DidYouMean("lst", kCommands), "; did you mean 'list'?");
}

}  // namespace
}  // namespace gradwatch
