#ifndef GRADWATCH_SERVER_NN_GEMM_H_
#define GRADWATCH_SERVER_NN_GEMM_H_

#include <cstdint>

#include "absl/types/span.h"
#include "server/base/range.h"
#include "server/base/vector.h"
#include "server/nn/buffer.h"

namespace gradwatch::nn {

// All matrix products of the room: one kernel for all of them, over weights that are packed once
// and used for many products, or over two operands packed as they are needed. Matrices are
// row-major with a leading dimension (entries from one row to the next).
//
// Every entry of a product is one sum over the depth in an order that depends on the depth alone:
// not on the other rows and outputs that are asked for. So the work may be split among threads by
// rows or by outputs, and the result has the same bits however it is. Nothing here allocates.
//
// Source of the scheme: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
// 2008.

// Outputs whose weights are packed together. Ranges of outputs begin at multiples of it.
template <typename S>
constexpr int64_t kPanel = 2 * kVectorSize<S>;

// What stays in the second-level cache from one product to the next, in bytes: half of a usual one.
constexpr int64_t kNearBytes = 256 << 10;

// What a product does to what stands in its target.
enum class Into { kAdd, kOverwrite };

// A weight matrix [outputs, depth] in the order in which the kernel reads it. A view: the memory,
// Size() entries from a 64-byte boundary on, is the caller's.
template <typename S>
class PackedMatrix {
 public:
  PackedMatrix(S* data, int64_t outputs, int64_t depth)
      : data_(data), outputs_(outputs), depth_(depth) {}
  // Saturates at INT64_MAX.
  static int64_t Size(int64_t outputs, int64_t depth);

  int64_t outputs() const { return outputs_; }

  // Takes these outputs of w [outputs, depth].
  void Pack(const S* w, int64_t ld, Range outputs) const;
  // Takes these outputs of the transpose of w [depth, outputs].
  void PackTransposed(const S* w, int64_t ld, Range outputs) const;

  // c [rows, …] = (c, or 0, or `start` in every row) + x [rows, depth] * packed^T, for a range of
  // outputs, all of which are packed. `c` and `start` begin at the first output of the range;
  // `start` may be null and is used with kOverwrite. `soon`: memory that is read next, which is
  // prefetched into the second-level cache meanwhile; may be empty.
  void Multiply(Range outputs, int64_t rows, const S* x, int64_t ldx, Into into, const S* start,
                S* c, int64_t ldc, absl::Span<const S> soon = {}) const {
    MultiplyGroups(outputs, {1, rows, 0, 0}, x, ldx, into, start, c, ldc, soon);
  }

  // The same for several groups of rows: reading a panel of weights once for all of them.
  struct Groups {
    int64_t count = 1;
    int64_t rows = 0;
    int64_t x_stride = 0;  // Entries from one group to the next.
    int64_t c_stride = 0;
  };
  void MultiplyGroups(Range outputs, const Groups& groups, const S* x, int64_t ldx, Into into,
                      const S* start, S* c, int64_t ldc, absl::Span<const S> soon = {}) const;

 private:
  S* data_;
  int64_t outputs_;
  int64_t depth_;
};

// Entries of the work memory of OuterProducts, one for each thread, from a 64-byte boundary on.
template <typename S>
constexpr int64_t OuterProductWorkspace();

// One right operand of an outer product, x [rows, k], and where its product goes, c [m, k].
template <typename S>
struct OuterTerm {
  int64_t k = 0;
  const S* x = nullptr;
  int64_t ldx = 0;
  S* c = nullptr;
  int64_t ldc = 0;
};

// Sums of an outer product's left operand g [rows, m] over its rows, for the range of m that is
// asked for; what is null is not wanted. The memory is the caller's; a thread writes its range
// only.
template <typename S>
struct RowSums {
  S* all = nullptr;  // [m]: a bias gradient.
  // [slots, m]: sums over the rows of each slot, the gradient at inputs that rows share. Always
  // added to what is there, row by row, in order.
  S* by_slot = nullptr;
  int64_t ld = 0;                        // Entries of `by_slot` from one slot to the next.
  const int32_t* slot_of_row = nullptr;  // [rows], with by_slot.
};

// c [m, k] = (c, or 0) + g [rows, m]^T * x [rows, k] for up to two terms: weight gradients, summed
// over rows, for a range of the m rows of c, which best begins at a multiple of kOuterStep.
// `sums.all` becomes likewise (`sums.all`, or 0) + the sums of g over its rows. With kOverwrite
// there is at least one row. `workspace` has OuterProductWorkspace() entries.
template <typename S>
void OuterProducts(Range m, int64_t rows, const S* g, int64_t ldg,
                   absl::Span<const OuterTerm<S>> terms, Into into, RowSums<S> sums, S* workspace);

// sums [n] += the sums over the rows of g [rows, n].
template <typename S>
void AddColumnSums(int64_t rows, int64_t n, const S* g, int64_t ldg, S* sums);

// --- details -------------------------------------------------------------------------------------

namespace internal {
constexpr int64_t kDepthMax = 256;    // Depth of a block: its panel stays in the first-level cache.
constexpr int64_t kColumnsMax = 512;  // Columns of x that are packed at a time.
// Rows of c that one call of the kernel makes: as many as registers hold; of packed weights also no
// more than can be addressed, as each has a place of its own.
constexpr int64_t kTileRows = kVectorBytes == 64 ? 8 : 6;
constexpr int64_t kOuterTileRows = kVectorBytes == 64 ? 12 : 6;
constexpr int64_t kLeftTiles = 12;  // Tiles of g that are packed at a time.
}  // namespace internal

// Rows of an outer product that are made together.
constexpr int64_t kOuterStep = internal::kOuterTileRows;

template <typename S>
constexpr int64_t OuterProductWorkspace() {
  using namespace internal;
  constexpr int64_t left = kLeftTiles * kOuterTileRows * kDepthMax;
  constexpr int64_t right = (kColumnsMax + kPanel<S>)*kDepthMax;
  return (left + right + 15) / 16 * 16;
}

extern template class PackedMatrix<float>;
extern template class PackedMatrix<double>;
extern template void OuterProducts(Range, int64_t, const float*, int64_t,
                                   absl::Span<const OuterTerm<float>>, Into, RowSums<float>,
                                   float*);
extern template void OuterProducts(Range, int64_t, const double*, int64_t,
                                   absl::Span<const OuterTerm<double>>, Into, RowSums<double>,
                                   double*);
extern template void AddColumnSums(int64_t, int64_t, const float*, int64_t, float*);
extern template void AddColumnSums(int64_t, int64_t, const double*, int64_t, double*);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_GEMM_H_
