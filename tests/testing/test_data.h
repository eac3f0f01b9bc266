#ifndef GRADWATCH_TESTS_TESTING_TEST_DATA_H_
#define GRADWATCH_TESTS_TESTING_TEST_DATA_H_

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

namespace gradwatch::testing {

// The bytes of a file of real data, such as "tinyshakespeare/input.txt": under the folder that
// GRADWATCH_TEST_DATA names, else under shared/data beside the project. Nothing when it is not
// there: such a test skips visibly.
inline std::optional<std::string> ReadTestData(const std::string& name) {
  const char* folder = std::getenv("GRADWATCH_TEST_DATA");
  const std::string path =
      (folder != nullptr ? std::string(folder) : GRADWATCH_SOURCE_DIR "/../shared/data") + "/" +
      name;
  std::ifstream file(path, std::ios::binary);
  if (!file.good()) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

}  // namespace gradwatch::testing

#endif  // GRADWATCH_TESTS_TESTING_TEST_DATA_H_
