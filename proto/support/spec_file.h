#ifndef GRADWATCH_PROTO_SUPPORT_SPEC_FILE_H_
#define GRADWATCH_PROTO_SUPPORT_SPEC_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace google::protobuf {
class Message;
}  // namespace google::protobuf

namespace gradwatch {

// Files that people write (YAML, and JSON as a part of it) into messages, by reflection.
//
// Keys are field names in snake_case; proto JSON's lowerCamelCase is understood too. Values are as
// proto JSON has them: 64-bit integers and "NaN", "Infinity", "-Infinity" may be quoted, timestamps
// and durations are strings, bytes are base64. More lenient: an enum value may lose its prefix and
// be in any case (CELL_RNN_TANH, rnn_tanh, rnn-tanh), a string field takes any scalar. Stricter:
// true and false only, no merge keys, and a message must not be left empty ("clipping:"), because
// that could mean two things; a null scalar is absent.
//
// Bounds, so that a hostile file ends in an error: its size, nesting, values after aliases are
// followed.
inline constexpr size_t kSpecFileBytesMax = 1 << 20;
inline constexpr int kSpecFileDepthMax = 64;
inline constexpr int kSpecFileValuesMax = 200'000;

// Reads `text` into `message`, which is cleared first. INVALID_ARGUMENT (errors.h: InvalidFields)
// names every problem at once with its line: text that is not YAML, several documents, unknown
// keys with "did you mean", wrong types, numbers out of range, two members of a oneof, a key twice.
// On an error `message` holds what could be read.
absl::Status ParseSpec(absl::string_view text, google::protobuf::Message* message);

// The same from a file; "-" is standard input. NOT_FOUND or PERMISSION_DENIED when it cannot be
// read, RESOURCE_EXHAUSTED when it is too large; messages name the path.
absl::Status ReadSpecFile(const std::string& path, google::protobuf::Message* message);

// Sets one single value, such as ("model.cell", "rnn-tanh"), by the same rules; creates the
// messages on the way. INVALID_ARGUMENT like ParseSpec, without a line; INTERNAL for a path that
// names no single value.
absl::Status SetField(const std::string& path, const std::string& value,
                      google::protobuf::Message* message);

}  // namespace gradwatch

#endif  // GRADWATCH_PROTO_SUPPORT_SPEC_FILE_H_
