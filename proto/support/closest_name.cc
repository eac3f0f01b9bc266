#include "proto/support/closest_name.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace gradwatch {
namespace {

// Names longer than this are not names that somebody mistyped; bounds the work.
constexpr size_t kLengthMax = 64;

std::string Normalised(absl::string_view name) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"-", "_"}});
}

// Damerau's distance with non-overlapping swaps.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        next[j] = std::min(next[j], before[j - 2] + 1);
      }
    }
    std::swap(before, row);
    std::swap(row, next);
  }
  return row[b.size()];
}

}  // namespace

std::string ClosestName(absl::string_view name, const std::vector<std::string>& candidates) {
  if (name.empty() || name.size() > kLengthMax) return "";
  const std::string wanted = Normalised(name);
  std::string best;
  size_t best_distance = kLengthMax;
  std::string longer;  // The only candidate that begins with the name.
  int longer_count = 0;
  for (const std::string& candidate : candidates) {
    if (candidate.empty() || candidate.size() > kLengthMax) continue;
    const std::string other = Normalised(candidate);
    if (absl::StartsWith(other, wanted) && wanted.size() >= 2) {
      longer = candidate;
      ++longer_count;
    }
    const size_t distance = Distance(wanted, other);
    if (distance <= std::max(wanted.size(), other.size()) / 3 && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  if (best.empty() && longer_count == 1) return longer;
  return best;
}

std::string DidYouMean(absl::string_view name, const std::vector<std::string>& candidates) {
  const std::string closest = ClosestName(name, candidates);
  return closest.empty() ? "" : absl::StrCat("; did you mean '", closest, "'?");
}

}  // namespace gradwatch
