#ifndef GRADWATCH_SERVER_CLIP_NORM_H_
#define GRADWATCH_SERVER_CLIP_NORM_H_

#include <cstdint>

#include "absl/types/span.h"
#include "server/clip/policy.h"

namespace gradwatch::clip {

enum class Norm { kL1, kL2, kInf };

// The norm of `values`, summed in double: 0 for none, NaN if one is NaN, else infinite if one is.
// A finite norm comes out right to a few ulp per accumulator whatever the size of the entries, also
// where squares leave the range of double. Same build, same values: same bits.
template <typename S>
double NormOf(Norm order, absl::Span<const S> values);

// The same over all blocks together: of the blocks' norms, as PyTorch does it.
template <typename S>
double NormOf(Norm order, absl::Span<const Block<S>> blocks);

// The norm of a vector of which `a` and `b` are the norms of two parts.
double JoinNorms(Norm order, double a, double b);

extern template double NormOf(Norm, absl::Span<const float>);
extern template double NormOf(Norm, absl::Span<const double>);
extern template double NormOf(Norm, absl::Span<const Block<float>>);
extern template double NormOf(Norm, absl::Span<const Block<double>>);

}  // namespace gradwatch::clip

#endif  // GRADWATCH_SERVER_CLIP_NORM_H_
