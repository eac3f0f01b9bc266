#ifndef GRADWATCH_PROTO_SUPPORT_CLOSEST_NAME_H_
#define GRADWATCH_PROTO_SUPPORT_CLOSEST_NAME_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gradwatch {

// The candidate that `name` was most likely meant to be: the smallest edit distance (insert,
// delete, replace, swap of neighbours; case and '-' against '_' count nothing), at most a third of
// the longer length, or a candidate that begins with `name`. Empty when none is close.
std::string ClosestName(absl::string_view name, const std::vector<std::string>& candidates);

// "; did you mean 'hidden_units'?", or nothing.
std::string DidYouMean(absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace gradwatch

#endif  // GRADWATCH_PROTO_SUPPORT_CLOSEST_NAME_H_
