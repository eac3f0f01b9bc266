#include "server/nn/gemm.h"

#include <algorithm>

#include "Eigen/Core"
#include "server/base/check.h"

// The kernel is Eigen's; the loops around it are ours, because Eigen's own would allocate for large
// products and pack the weights again at every time step.

namespace gradwatch::nn {
namespace {

namespace internal = Eigen::internal;
using Eigen::ColMajor;
using Eigen::Index;
using Eigen::RowMajor;

template <typename S>
using Traits = internal::gebp_traits<S, S>;
template <typename S, int order>
using Source = internal::const_blas_data_mapper<S, Index, order>;
template <typename S>
using Target = internal::blas_data_mapper<S, Index, ColMajor>;
template <typename S>
using Kernel = internal::gebp_kernel<S, S, Index, Target<S>, Traits<S>::mr, Traits<S>::nr,
                                     /*ConjugateLhs=*/false, /*ConjugateRhs=*/false>;
template <typename S, int order>
using PackLeft =
    internal::gemm_pack_lhs<S, Index, Source<S, order>, Traits<S>::mr, Traits<S>::LhsProgress,
                            typename Traits<S>::LhsPacket4Packing, order>;
template <typename S, int order>
using PackRight = internal::gemm_pack_rhs<S, Index, Source<S, order>, Traits<S>::nr, order>;

// A left block of kLeftMax x depth stays in L2, a sliver of the right block in L1.
template <typename S>
constexpr int64_t kDepthMax = 1152 / static_cast<int64_t>(sizeof(S));
constexpr int64_t kLeftMax = 240;
constexpr int64_t kRightMax = 512;
constexpr int64_t kPackAlignment = 16;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Equal blocks of at most the maximum, so that no thin one is left over.
template <typename S>
int64_t DepthBlock(int64_t depth) {
  const int64_t blocks = (depth + kDepthMax<S> - 1) / kDepthMax<S>;
  return blocks <= 1 ? depth : std::min(depth, RoundUp((depth + blocks - 1) / blocks, 8));
}

}  // namespace

template <typename S>
GemmWorkspace<S>::GemmWorkspace()
    : left_(kLeftMax * kDepthMax<S>), right_(kRightMax * kDepthMax<S>) {}

template <typename S>
int64_t GemmWorkspace<S>::Size() {
  return (kLeftMax + kRightMax) * kDepthMax<S>;
}

template <typename S>
int64_t PackedMatrix<S>::Size(int64_t outputs, int64_t depth) {
  // Each block starts aligned, which costs less than one alignment per block.
  const int64_t blocks = SaturatingMultiply(outputs / kLeftMax + 1, depth / (kDepthMax<S> / 2) + 1);
  return SaturatingAdd(SaturatingMultiply(outputs, depth),
                       SaturatingMultiply(blocks, kPackAlignment));
}

template <typename S>
template <typename Pack, typename Mapper>
void PackedMatrix<S>::PackBlocks(const Mapper& source, int64_t outputs, int64_t depth) {
  GRADWATCH_CHECK(Size(outputs, depth) <= data_.size());
  outputs_ = outputs;
  depth_ = depth;
  const int64_t depth_block = DepthBlock<S>(depth);
  S* block = data_.data();
  Pack pack;
  for (int64_t k = 0; k < depth; k += depth_block) {
    const int64_t kc = std::min(depth_block, depth - k);
    for (int64_t i = 0; i < outputs; i += kLeftMax) {
      const int64_t mc = std::min(kLeftMax, outputs - i);
      pack(block, source.getSubMapper(i, k), kc, mc);
      block += RoundUp(mc * kc, kPackAlignment);
    }
  }
}

template <typename S>
void PackedMatrix<S>::Pack(const S* w, int64_t ld, int64_t outputs, int64_t depth) {
  PackBlocks<PackLeft<S, RowMajor>>(Source<S, RowMajor>(w, ld), outputs, depth);
}

template <typename S>
void PackedMatrix<S>::PackTransposed(const S* w, int64_t ld, int64_t outputs, int64_t depth) {
  PackBlocks<PackLeft<S, ColMajor>>(Source<S, ColMajor>(w, ld), outputs, depth);
}

template <typename S>
void PackedMatrix<S>::AddProduct(int64_t rows, const S* x, int64_t ldx, S* c, int64_t ldc,
                                 GemmWorkspace<S>& workspace) const {
  // Seen by columns: c^T [outputs, rows] += packed [outputs, depth] * x^T [depth, rows].
  const Source<S, ColMajor> right(x, ldx);
  const Target<S> target(c, ldc);
  const int64_t depth_block = DepthBlock<S>(depth_);
  PackRight<S, ColMajor> pack;
  Kernel<S> kernel;
  for (int64_t j = 0; j < rows; j += kRightMax) {
    const int64_t nc = std::min(kRightMax, rows - j);
    const S* block = data_.data();
    for (int64_t k = 0; k < depth_; k += depth_block) {
      const int64_t kc = std::min(depth_block, depth_ - k);
      pack(workspace.right(), right.getSubMapper(k, j), kc, nc);
      for (int64_t i = 0; i < outputs_; i += kLeftMax) {
        const int64_t mc = std::min(kLeftMax, outputs_ - i);
        kernel(target.getSubMapper(i, j), block, workspace.right(), mc, kc, nc, S(1));
        block += RoundUp(mc * kc, kPackAlignment);
      }
    }
  }
}

template <typename S>
void AddOuterProduct(int64_t rows, int64_t m, int64_t k, const S* g, int64_t ldg, const S* x,
                     int64_t ldx, S* c, int64_t ldc, GemmWorkspace<S>& workspace) {
  // Seen by columns: c^T [k, m] += x^T [k, rows] * g [rows, m].
  const Source<S, ColMajor> left(x, ldx);
  const Source<S, RowMajor> right(g, ldg);
  const Target<S> target(c, ldc);
  const int64_t depth_block = DepthBlock<S>(rows);
  PackLeft<S, ColMajor> pack_left;
  PackRight<S, RowMajor> pack_right;
  Kernel<S> kernel;
  for (int64_t i = 0; i < k; i += kLeftMax) {
    const int64_t mc = std::min(kLeftMax, k - i);
    for (int64_t d = 0; d < rows; d += depth_block) {
      const int64_t kc = std::min(depth_block, rows - d);
      pack_left(workspace.left(), left.getSubMapper(i, d), kc, mc);
      for (int64_t j = 0; j < m; j += kRightMax) {
        const int64_t nc = std::min(kRightMax, m - j);
        pack_right(workspace.right(), right.getSubMapper(d, j), kc, nc);
        kernel(target.getSubMapper(i, j), workspace.left(), workspace.right(), mc, kc, nc, S(1));
      }
    }
  }
}

template class GemmWorkspace<float>;
template class GemmWorkspace<double>;
template class PackedMatrix<float>;
template class PackedMatrix<double>;
template void AddOuterProduct(int64_t, int64_t, int64_t, const float*, int64_t, const float*,
                              int64_t, float*, int64_t, GemmWorkspace<float>&);
template void AddOuterProduct(int64_t, int64_t, int64_t, const double*, int64_t, const double*,
                              int64_t, double*, int64_t, GemmWorkspace<double>&);

}  // namespace gradwatch::nn
