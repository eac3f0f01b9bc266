#ifndef GRADWATCH_TESTS_UNIT_TRAIN_FIXTURES_H_
#define GRADWATCH_TESTS_UNIT_TRAIN_FIXTURES_H_

#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace gradwatch::train {

// tests/golden/train/NAME.json, as nlohmann::json or nlohmann::ordered_json.
template <typename Json>
Json Fixture(const std::string& name) {
  const std::string path =
      std::string(GRADWATCH_SOURCE_DIR) + "/tests/golden/train/" + name + ".json";
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return Json::parse(file);
}

}  // namespace gradwatch::train

#endif  // GRADWATCH_TESTS_UNIT_TRAIN_FIXTURES_H_
