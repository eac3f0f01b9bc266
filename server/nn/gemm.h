#ifndef GRADWATCH_SERVER_NN_GEMM_H_
#define GRADWATCH_SERVER_NN_GEMM_H_

#include <cstdint>

#include "server/nn/buffer.h"

namespace gradwatch::nn {

// All matrix products of the room. Matrices are row-major with a leading dimension (entries from
// one row to the next). Blocking is fixed, not taken from the machine's caches, so sums are formed
// in one order everywhere. Nothing here allocates after construction.

// Scratch memory for products; any number of them may use it, one after another.
template <typename S>
class GemmWorkspace {
 public:
  GemmWorkspace();
  static int64_t Size();  // Entries of S.
  S* left() { return left_.data(); }
  S* right() { return right_.data(); }

 private:
  Buffer<S> left_;
  Buffer<S> right_;
};

// A weight matrix in the order in which the kernel reads it: packed once, used for many products.
// Source of the scheme: Goto and van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008.
template <typename S>
class PackedMatrix {
 public:
  // Holds up to `capacity` entries as Size() counts them.
  explicit PackedMatrix(int64_t capacity) : data_(capacity) {}
  static int64_t Size(int64_t outputs, int64_t depth);

  // Takes w [outputs, depth].
  void Pack(const S* w, int64_t ld, int64_t outputs, int64_t depth);
  // Takes the transpose of w [depth, outputs].
  void PackTransposed(const S* w, int64_t ld, int64_t outputs, int64_t depth);

  // c [rows, outputs] += x [rows, depth] * packed^T.
  void AddProduct(int64_t rows, const S* x, int64_t ldx, S* c, int64_t ldc,
                  GemmWorkspace<S>& workspace) const;

 private:
  template <typename Pack, typename Mapper>
  void PackBlocks(const Mapper& source, int64_t outputs, int64_t depth);

  int64_t outputs_ = 0;
  int64_t depth_ = 0;
  Buffer<S> data_;
};

// c [m, k] += g [rows, m]^T * x [rows, k]: a weight gradient, summed over rows.
template <typename S>
void AddOuterProduct(int64_t rows, int64_t m, int64_t k, const S* g, int64_t ldg, const S* x,
                     int64_t ldx, S* c, int64_t ldc, GemmWorkspace<S>& workspace);

extern template class GemmWorkspace<float>;
extern template class GemmWorkspace<double>;
extern template class PackedMatrix<float>;
extern template class PackedMatrix<double>;
extern template void AddOuterProduct(int64_t, int64_t, int64_t, const float*, int64_t, const float*,
                                     int64_t, float*, int64_t, GemmWorkspace<float>&);
extern template void AddOuterProduct(int64_t, int64_t, int64_t, const double*, int64_t,
                                     const double*, int64_t, double*, int64_t,
                                     GemmWorkspace<double>&);

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_GEMM_H_
