#include "server/nn/gemm.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "Eigen/Core"
#include "server/base/check.h"
#include "server/nn/packet.h"

namespace gradwatch::nn {
namespace {

using internal::kColumnsMax;
using internal::kDepthMax;
using internal::kLeftTiles;
using internal::kOuterTileRows;
using internal::kTileRows;

// Panels that a tile of few rows takes at once: it needs some eight sums to keep the multipliers
// busy, however few its rows are.
constexpr int PanelsOf(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

// Equal blocks of at most kDepthMax, so that no thin one is left over.
int64_t DepthBlock(int64_t depth) {
  const int64_t blocks = (depth + kDepthMax - 1) / kDepthMax;
  return blocks <= 1 ? depth : std::min(depth, ((depth + blocks - 1) / blocks + 7) / 8 * 8);
}

int64_t PanelsFor(int64_t outputs, int64_t panel) { return (outputs + panel - 1) / panel; }

// What tiles are made of.
enum class Operands {
  kWeights,     // Rows, and packed weights that are near.
  kFarWeights,  // Rows, and packed weights that are called for while others are multiplied.
  kPacked,      // Two packed operands.
};
template <Operands kOf>
constexpr int64_t kRowsOf = kOf == Operands::kPacked ? kOuterTileRows : kTileRows;

constexpr int64_t kCacheLine = 64;

// A tile: rows x panels * kPanel entries of c, each summed over one block of the depth.
// a: [rows, depth] with a leading dimension, or packed as [depth, kOuterTileRows].
template <typename S>
struct TileWork {
  int64_t depth;
  const S* a;
  int64_t lda;
  const S* b;            // [depth, kPanel] for each panel.
  int64_t panel_stride;  // Entries from one panel to the next.
  S* c;
  int64_t ldc;
  int64_t columns;  // Of c, at most panels * kPanel.
  Into into;
  const S* start;  // With kOverwrite: [columns], or null for zeros.
  // Of far weights: those that are read next, and how many of them to call for at each step of the
  // depth. Nothing is read by that.
  const S* ahead = nullptr;
  int64_t ahead_step = 0;
};

template <typename S, int kRows, int kPanels, Operands kOf>
void Tile(const TileWork<S>& work) {
  using V = Vector<S>;
  constexpr int kVectors = 2 * kPanels;
  constexpr int64_t kLanes = kVectorSize<S>;
  constexpr bool kPackedLeft = kOf == Operands::kPacked;
  V sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[r][v] = V{};
  }
  const S* a = work.a;
  const S* b = work.b;
  const int64_t lda = work.lda;
  const int64_t panel_stride = work.panel_stride;
  if constexpr (kPackedLeft || kRows > 3) {  // What the tile is added to, or written to.
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int64_t i = 0; i < kVectors * kVectorBytes; i += kCacheLine) {
        __builtin_prefetch(work.c + r * work.ldc + i / static_cast<int64_t>(sizeof(S)));
      }
    }
  }
  const S* ahead = work.ahead;
  const int64_t ahead_step = work.ahead_step;
  // Counting takes up places that multiplications could have, most where two threads share a core.
#pragma GCC unroll 8
  for (int64_t k = 0; k < work.depth; ++k) {
    V right[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      right[v] = LoadVector(b + (v / 2) * panel_stride + (v % 2) * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const S left = kPackedLeft ? a[r] : a[r * lda];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[r][v] += left * right[v];
    }
    a += kPackedLeft ? kOuterTileRows : 1;
    b += kPanel<S>;
    if constexpr (kOf == Operands::kFarWeights) {
      __builtin_prefetch(ahead, 0, 2);  // To the second-level cache.
      ahead += ahead_step;
    }
  }
  if (work.columns == kVectors * kLanes) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        S* const c = work.c + r * work.ldc + v * kLanes;
        V value = sums[r][v];
        if (work.into == Into::kAdd) {
          value += LoadVector(c);
        } else if (work.start != nullptr) {
          value += LoadVector(work.start + v * kLanes);
        }
        StoreVector<S>(value, c);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    S row[kVectors * kLanes];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) StoreVector<S>(sums[r][v], row + v * kLanes);
    S* const c = work.c + r * work.ldc;
    for (int64_t j = 0; j < work.columns; ++j) {
      if (work.into == Into::kAdd) {
        c[j] += row[j];
      } else {
        c[j] = work.start == nullptr ? row[j] : work.start[j] + row[j];
      }
    }
  }
}

template <typename S>
using TileFunction = void (*)(const TileWork<S>&);

// Few rows use weights up as fast as they come: nothing is gained by calling for them.
constexpr Operands ForRows(int rows, Operands of) {
  return of == Operands::kFarWeights && rows <= 3 ? Operands::kWeights : of;
}

// Tiles of 1 … kRowsOf rows, with as many panels as PanelsOf says, or kPanels if that is less.
template <typename S, Operands kOf, int kPanels, size_t... kIndex>
constexpr auto MakeTiles(std::index_sequence<kIndex...>) {
  return std::array<TileFunction<S>, sizeof...(kIndex)>{
      Tile<S, static_cast<int>(kIndex) + 1,
           std::min(kPanels, PanelsOf(static_cast<int>(kIndex) + 1)),
           ForRows(static_cast<int>(kIndex) + 1, kOf)>...};
}
template <typename S, Operands kOf, int kPanels>
constexpr auto kTiles = MakeTiles<S, kOf, kPanels>(std::make_index_sequence<kRowsOf<kOf>>());
template <typename S, Operands kOf>
const TileFunction<S>* TilesOf(int64_t panels) {
  return panels == 1   ? kTiles<S, kOf, 1>.data()
         : panels == 2 ? kTiles<S, kOf, 2>.data()
                       : kTiles<S, kOf, 4>.data();
}

// Rows of tile number `tile` of `tiles` over `rows` rows: nearly equal ones.
int64_t TileBegin(int64_t rows, int64_t tile, int64_t tiles) {
  return tile == 0 ? 0 : tile == tiles ? rows : rows * tile / tiles;
}

// Prefetches memory a few cache lines at a time: more at once would be waited for.
class Prefetcher {
 public:
  // All of [begin, begin + bytes) has been asked for after `calls` calls of FetchSome.
  Prefetcher(const void* begin, int64_t bytes, int64_t calls)
      : next_(static_cast<const char*>(begin)),
        end_(next_ + bytes),
        step_((bytes + calls * kCacheLine - 1) / (calls * kCacheLine) * kCacheLine) {}
  void FetchSome() {
    const char* const end = next_ + std::min<int64_t>(step_, end_ - next_);
    for (; next_ < end; next_ += kCacheLine) __builtin_prefetch(next_, 0, 2);
    next_ = end;
  }

 private:
  const char* next_;
  const char* const end_;
  const int64_t step_;
};

// One block of the depth times the rows of a: few panels at a time for all rows, so that they stay
// in the first-level cache, or near it. `next`: far weights that are read after it.
// `prefetcher`, which may be null, fetches some with each tile.
template <typename S, Operands kOf>
void MultiplyBlock(TileWork<S> work, const typename PackedMatrix<S>::Groups& groups,
                   int64_t columns, const S* next, Prefetcher* prefetcher) {
  constexpr bool kPackedLeft = kOf == Operands::kPacked;
  const int64_t rows = groups.rows;
  const S* const a = work.a;
  S* const c = work.c;
  const S* const b = work.b;
  const S* const start = work.start;
  constexpr int64_t kMost = kRowsOf<kOf>;
  const int64_t tiles = (rows + kMost - 1) / kMost;
  const int64_t wide = tiles == 1 ? PanelsOf(static_cast<int>(rows)) : 1;
  // Some panels in turn for each tile of rows, so that it writes more than a cache line of a row
  // before it goes on to the next: the target is mostly far, and memory likes what lies together.
  constexpr int64_t kBlockBytes = 32 << 10;
  const int64_t panel_bytes = work.panel_stride * static_cast<int64_t>(sizeof(S));
  const int64_t block = kPackedLeft || tiles == 1
                            ? kPanel<S>
                            : std::max(int64_t{1}, kBlockBytes / panel_bytes) * kPanel<S>;
  for (int64_t j = 0; j < columns;) {
    int64_t panels = wide;
    while (panels > 1 && columns - j < panels * kPanel<S>) panels /= 2;
    const int64_t width = panels * kPanel<S>;
    const int64_t end =
        j + (panels > 1 ? width : std::min(block, PanelsFor(columns - j, kPanel<S>) * kPanel<S>));
    const TileFunction<S>* const functions = TilesOf<S, kOf>(panels);
    if constexpr (kOf == Operands::kFarWeights) {
      work.ahead = end < columns ? b + end / kPanel<S> * work.panel_stride : next;
      work.ahead_step = kPanel<S> / (groups.count * tiles);
    }
    for (int64_t group = 0; group < groups.count; ++group) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        // A packed left operand comes in whole tiles.
        const int64_t first = kPackedLeft ? tile * kMost : TileBegin(rows, tile, tiles);
        const int64_t last =
            kPackedLeft ? std::min(rows, first + kMost) : TileBegin(rows, tile + 1, tiles);
        work.a = a + group * groups.x_stride +
                 (kPackedLeft ? tile * kMost * work.depth : first * work.lda);
        S* const c_row = c + group * groups.c_stride + first * work.ldc;
        for (int64_t column = j; column < end; column += width) {
          work.columns = std::min(width, columns - column);
          work.b = b + column / kPanel<S> * work.panel_stride;
          work.start = start == nullptr ? nullptr : start + column;
          work.c = c_row + column;
          if (prefetcher != nullptr) prefetcher->FetchSome();
          functions[last - first - 1](work);
          if constexpr (kOf == Operands::kFarWeights) work.ahead += work.ahead_step * work.depth;
        }
      }
    }
    j = end;
  }
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // Of a vector type as a template argument.
// Transposes kLanes rows of `from` into kLanes rows of `to`.
template <typename S>
void TransposeLanes(const S* from, int64_t ld, S* to, int64_t to_ld) {
  packet::PacketBlock<Packet<S>, kLanes<S>> block;
  for (int i = 0; i < kLanes<S>; ++i) block.packet[i] = packet::ploadu<Packet<S>>(from + i * ld);
  packet::ptranspose(block);
  for (int i = 0; i < kLanes<S>; ++i) packet::pstoreu(to + i * to_ld, block.packet[i]);
}
#pragma GCC diagnostic pop

// panel [depth, kPanel] = the transpose of w [outputs, depth], outputs <= kPanel, rest zero.
template <typename S>
void PackPanel(const S* w, int64_t ld, int64_t outputs, int64_t depth, S* panel) {
  int64_t k = 0;
  if (outputs == kPanel<S>) {
    for (; k + kLanes<S> <= depth; k += kLanes<S>) {
      for (int64_t j = 0; j < kPanel<S>; j += kLanes<S>) {
        TransposeLanes(w + j * ld + k, ld, panel + k * kPanel<S> + j, kPanel<S>);
      }
    }
  }
  for (; k < depth; ++k) {
    S* const row = panel + k * kPanel<S>;
    for (int64_t j = 0; j < outputs; ++j) row[j] = w[j * ld + k];
    std::fill(row + outputs, row + kPanel<S>, S(0));
  }
}

// panel [depth, kPanel] = `columns` columns of x [depth, …], rest zero.
template <typename S>
void CopyPanel(const S* x, int64_t ld, int64_t columns, int64_t depth, S* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    S* const row = panel + k * kPanel<S>;
    if (columns == kPanel<S>) {
      StoreVector<S>(LoadVector(x + k * ld), row);
      StoreVector<S>(LoadVector(x + k * ld + kVectorSize<S>), row + kVectorSize<S>);
    } else {
      std::copy_n(x + k * ld, columns, row);
      std::fill(row + columns, row + kPanel<S>, S(0));
    }
  }
}

// Calls body(first depth, depth, first output, outputs, panel) for every panel of the range.
template <typename S, typename Body>
void ForPanels(S* data, int64_t outputs, int64_t depth, Range range, Body&& body) {
  const int64_t panels = PanelsFor(outputs, kPanel<S>);
  const int64_t depth_block = DepthBlock(depth);
  for (int64_t k = 0; k < depth; k += depth_block) {
    const int64_t kc = std::min(depth_block, depth - k);
    S* const block = data + k * panels * kPanel<S>;
    for (int64_t j = range.begin; j < range.end; j += kPanel<S>) {
      body(k, kc, j, std::min(kPanel<S>, outputs - j), block + j * kc);
    }
  }
}

}  // namespace

template <typename S>
int64_t PackedMatrix<S>::Size(int64_t outputs, int64_t depth) {
  const int64_t padded =
      SaturatingMultiply(outputs / kPanel<S> + (outputs % kPanel<S> != 0), kPanel<S>);
  return SaturatingMultiply(padded, depth);
}

template <typename S>
void PackedMatrix<S>::Pack(const S* w, int64_t ld, Range outputs) const {
  ForPanels(data_, outputs_, depth_, outputs,
            [&](int64_t k, int64_t depth, int64_t j, int64_t width, S* panel) {
              PackPanel(w + j * ld + k, ld, width, depth, panel);
            });
}

template <typename S>
void PackedMatrix<S>::PackTransposed(const S* w, int64_t ld, Range outputs) const {
  ForPanels(data_, outputs_, depth_, outputs,
            [&](int64_t k, int64_t depth, int64_t j, int64_t width, S* panel) {
              CopyPanel(w + k * ld + j, ld, width, depth, panel);
            });
}

template <typename S>
void PackedMatrix<S>::MultiplyGroups(Range outputs, const Groups& groups, const S* x, int64_t ldx,
                                     Into into, const S* start, S* c, int64_t ldc,
                                     absl::Span<const S> soon) const {
  if (outputs.empty() || groups.rows == 0 || depth_ == 0) return;
  // So many rows of x that a block of them stays in the second-level cache.
  constexpr int64_t kRowsMax = 128;
  const int64_t panels = PanelsFor(outputs_, kPanel<S>);
  const int64_t depth_block = DepthBlock(depth_);
  const bool far = outputs.size() * depth_ * static_cast<int64_t>(sizeof(S)) > kNearBytes;
  std::optional<Prefetcher> of_soon;
  if (!soon.empty()) {
    const int64_t tiles = groups.count * PanelsFor(groups.rows, kTileRows) *
                          PanelsFor(outputs.size(), kPanel<S>) * PanelsFor(depth_, depth_block);
    of_soon.emplace(soon.data(), static_cast<int64_t>(soon.size() * sizeof(S)), tiles);
  }
  Prefetcher* const prefetcher = of_soon.has_value() ? &*of_soon : nullptr;
  Groups part = groups;
  for (int64_t r = 0; r < groups.rows; r += kRowsMax) {
    part.rows = std::min(kRowsMax, groups.rows - r);
    for (int64_t k = 0; k < depth_; k += depth_block) {
      const int64_t kc = std::min(depth_block, depth_ - k);
      TileWork<S> work;
      work.depth = kc;
      work.a = x + r * ldx + k;
      work.lda = ldx;
      work.b = data_ + k * panels * kPanel<S> + outputs.begin * kc;
      work.panel_stride = kc * kPanel<S>;
      work.c = c + r * ldc;
      work.ldc = ldc;
      work.into = k == 0 ? into : Into::kAdd;
      work.start = start;
      if (!far) {
        MultiplyBlock<S, Operands::kWeights>(work, part, outputs.size(), nullptr, prefetcher);
        continue;
      }
      const int64_t next = k + kc < depth_ ? k + kc : 0;
      const S* const next_panels =
          data_ + next * panels * kPanel<S> + outputs.begin * std::min(depth_block, depth_ - next);
      MultiplyBlock<S, Operands::kFarWeights>(work, part, outputs.size(), next_panels, prefetcher);
    }
  }
}

namespace {

constexpr size_t kOuterTermsMax = 2;
constexpr int64_t kNarrowMax = 4;  // Columns of a term that is narrow.
constexpr size_t kColumnsOfTermsMax = 1 + kOuterTermsMax * kNarrowMax;

// One column of a narrow right operand, x [rows], and where its product goes: c [m] with a stride.
// It is not worth a panel, most of which would be empty. Ones, with ldx 0, make sums over rows.
template <typename S>
struct Column {
  const S* x;
  int64_t ldx;
  S* c;
  int64_t ldc;
  Into into;
};

// sum [n] += from [rows, n]^T * x [rows], in the order of a tile's sums.
template <typename S>
void AddRows(const S* from, int64_t ld, int64_t rows, int64_t n, const S* x, int64_t ldx, S* sum) {
  const auto scale = [&](int64_t r) { return Constant<S>(static_cast<double>(x[r * ldx])); };
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4, from += 4 * ld) {
    const Packet<S> x0 = scale(r), x1 = scale(r + 1), x2 = scale(r + 2), x3 = scale(r + 3);
    ForPackets<S>(n, [&](int64_t j, auto lanes) {
      Packet<S> value = Load<S>(sum + j, lanes);
      value = packet::pmadd(Load<S>(from + j, lanes), x0, value);
      value = packet::pmadd(Load<S>(from + ld + j, lanes), x1, value);
      value = packet::pmadd(Load<S>(from + 2 * ld + j, lanes), x2, value);
      value = packet::pmadd(Load<S>(from + 3 * ld + j, lanes), x3, value);
      Store<S>(sum + j, value, lanes);
    });
  }
  for (; r < rows; ++r, from += ld) {
    const Packet<S> scaled = scale(r);
    ForPackets<S>(n, [&](int64_t j, auto lanes) {
      Store<S>(sum + j, packet::pmadd(Load<S>(from + j, lanes), scaled, Load<S>(sum + j, lanes)),
               lanes);
    });
  }
}

// Packs `count` columns of g [depth, …] in tiles of [depth, kOuterTileRows], the last filled up
// with zeros. Some rows at a time, as g's rows are far apart; what `columns` and `slots` want is
// made of them while they are near.
template <typename S>
void PackLeft(const S* g, int64_t ldg, int64_t depth, int64_t count, S* to,
              absl::Span<const Column<S>> columns, const RowSums<S>& slots) {
  constexpr int64_t kLeftMax = kLeftTiles * kOuterTileRows;
  constexpr int64_t kRowsAhead = 8;
  constexpr int64_t kRowsTogether = 8;
  const int64_t whole = count / kOuterTileRows;
  const int64_t rest = count - whole * kOuterTileRows;
  S parts[kColumnsOfTermsMax][kLeftMax];
  for (size_t i = 0; i < columns.size(); ++i) std::fill_n(parts[i], count, S(0));
  for (int64_t begin = 0; begin < depth; begin += kRowsTogether) {
    const int64_t end = std::min(begin + kRowsTogether, depth);
    for (int64_t k = begin; k < end; ++k) {
      const S* const from = g + k * ldg;
      const S* const later = g + std::min(k + kRowsAhead, depth - 1) * ldg;
      for (int64_t i = 0; i < count; i += kCacheLine / static_cast<int64_t>(sizeof(S))) {
        __builtin_prefetch(later + i);
      }
      S* tile = to + k * kOuterTileRows;
      for (int64_t i = 0; i < whole; ++i, tile += depth * kOuterTileRows) {
        std::memcpy(tile, from + i * kOuterTileRows, kOuterTileRows * sizeof(S));
      }
      if (rest > 0) {
        std::copy_n(from + whole * kOuterTileRows, rest, tile);
        std::fill(tile + rest, tile + kOuterTileRows, S(0));
      }
      if (slots.by_slot != nullptr) {
        AddTo(slots.by_slot + slots.slot_of_row[k] * slots.ld, from, count);
      }
    }
    for (size_t i = 0; i < columns.size(); ++i) {
      const Column<S>& column = columns[i];
      AddRows(g + begin * ldg, ldg, end - begin, count, column.x + begin * column.ldx, column.ldx,
              parts[i]);
    }
  }
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column<S>& column = columns[i];
    const bool add = column.into == Into::kAdd;
    for (int64_t j = 0; j < count; ++j) {
      S& c = column.c[j * column.ldc];
      c = add ? c + parts[i][j] : parts[i][j];
    }
  }
}

}  // namespace

// Long sums in float are made of shorter ones, so that rounding grows slowly.
template <typename S>
void AddColumnSums(int64_t rows, int64_t n, const S* g, int64_t ldg, S* sums) {
  using V = Vector<S>;
  constexpr int64_t kLanes = kVectorSize<S>;
  constexpr int64_t kRowsPerSum = 64;
  for (int64_t first = 0; first < rows; first += kRowsPerSum) {
    const int64_t last = std::min(rows, first + kRowsPerSum);
    int64_t j = 0;
    for (; j + 4 * kLanes <= n; j += 4 * kLanes) {
      V part[4] = {};
      for (int64_t r = first; r < last; ++r) {
        for (int v = 0; v < 4; ++v) part[v] += LoadVector(g + r * ldg + j + v * kLanes);
      }
      for (int v = 0; v < 4; ++v) {
        S* const sum = sums + j + v * kLanes;
        StoreVector<S>(LoadVector(sum) + part[v], sum);
      }
    }
    for (; j < n; ++j) {
      S part = 0;
      for (int64_t r = first; r < last; ++r) part += g[r * ldg + j];
      sums[j] += part;
    }
  }
}

namespace {

template <typename S>
bool IsNarrow(const OuterTerm<S>& term) {
  return term.k <= kNarrowMax;
}

// The columns of narrow terms, and that of ones which makes `sums` unless it is null, for rows from
// `row` on and for outputs from `output` on.
template <typename S>
class ColumnsOfTerms {
 public:
  ColumnsOfTerms(absl::Span<const OuterTerm<S>> terms, S* sums, int64_t row, int64_t output,
                 Into into) {
    static constexpr S kOne = 1;
    if (sums != nullptr) columns_[count_++] = {&kOne, 0, sums + output, 1, into};
    for (const OuterTerm<S>& term : terms) {
      if (!IsNarrow(term)) continue;
      for (int64_t j = 0; j < term.k; ++j) {
        columns_[count_++] = {term.x + row * term.ldx + j, term.ldx, term.c + output * term.ldc + j,
                              term.ldc, into};
      }
    }
  }
  absl::Span<const Column<S>> all() const { return {columns_, count_}; }

 private:
  Column<S> columns_[kColumnsOfTermsMax];
  size_t count_ = 0;
};

// c (+)= left^T * right for one block of the depth: `left` packed in tiles, columns [j, j +
// columns) of the term's x packed in panels.
template <typename S>
void PackedProduct(const S* left, int64_t count, const S* right, int64_t depth,
                   const OuterTerm<S>& term, int64_t row, int64_t j, int64_t columns, Into into) {
  TileWork<S> work;
  work.depth = depth;
  work.a = left;
  work.lda = 0;
  work.b = right;
  work.panel_stride = depth * kPanel<S>;
  work.c = term.c + row * term.ldc + j;
  work.ldc = term.ldc;
  work.into = into;
  work.start = nullptr;
  MultiplyBlock<S, Operands::kPacked>(work, {1, count, 0, 0}, columns, nullptr, nullptr);
}

// Terms one after the other have at most kColumnsMax columns at a time: the pieces of all of them.
struct Piece {
  size_t term;
  int64_t column;
  int64_t columns;
};

// Calls body(pieces) for groups of pieces with at most kColumnsMax columns together, of all terms
// but the narrow ones; at least once.
template <typename S, typename Body>
void ForPieces(absl::Span<const OuterTerm<S>> terms, Body&& body) {
  constexpr size_t kPiecesMax = 4;
  Piece pieces[kPiecesMax];
  size_t count = 0;
  int64_t room = kColumnsMax;
  bool flushed = false;
  const auto flush = [&] {
    if (count > 0 || !flushed) body(absl::Span<const Piece>(pieces, count));
    flushed = true;
    count = 0;
    room = kColumnsMax;
  };
  for (size_t term = 0; term < terms.size(); ++term) {
    if (IsNarrow(terms[term])) continue;
    for (int64_t j = 0; j < terms[term].k; j += kColumnsMax) {
      const int64_t columns = std::min(kColumnsMax, terms[term].k - j);
      const int64_t padded = PanelsFor(columns, kPanel<S>) * kPanel<S>;
      // A narrow piece rides along with a full one: the workspace has room for a panel more.
      if (count == kPiecesMax || (padded > room && padded > room + kPanel<S>)) flush();
      pieces[count++] = {term, j, columns};
      room -= padded;
    }
  }
  flush();
}

}  // namespace

template <typename S>
void OuterProducts(Range m, int64_t rows, const S* g, int64_t ldg,
                   absl::Span<const OuterTerm<S>> terms, Into into, RowSums<S> sums, S* workspace) {
  if (m.empty()) return;
  GRADWATCH_CHECK(rows > 0 || into == Into::kAdd);
  GRADWATCH_CHECK(terms.size() <= kOuterTermsMax);
  constexpr int64_t kLeftMax = kLeftTiles * kOuterTileRows;
  S* const left = workspace;
  S* const right = workspace + kLeftMax * kDepthMax;
  const int64_t depth_block = DepthBlock(rows);
  bool first = true;
  ForPieces(terms, [&](absl::Span<const Piece> pieces) {
    for (int64_t d = 0; d < rows; d += depth_block) {
      const int64_t depth = std::min(depth_block, rows - d);
      const Into block_into = d == 0 ? into : Into::kAdd;
      S* panel = right;
      for (const Piece& piece : pieces) {
        const OuterTerm<S>& term = terms[piece.term];
        for (int64_t p = 0; p < piece.columns; p += kPanel<S>, panel += kPanel<S> * depth) {
          CopyPanel(term.x + d * term.ldx + piece.column + p, term.ldx,
                    std::min(kPanel<S>, piece.columns - p), depth, panel);
        }
      }
      for (int64_t i = m.begin; i < m.end; i += kLeftMax) {
        const int64_t count = std::min(kLeftMax, m.end - i);
        // Narrow terms and sums come with the first pieces.
        const ColumnsOfTerms<S> columns(first ? terms : absl::Span<const OuterTerm<S>>(),
                                        first ? sums.all : nullptr, d, i, block_into);
        RowSums<S> slots;
        if (first && sums.by_slot != nullptr) {
          slots = {nullptr, sums.by_slot + i, sums.ld, sums.slot_of_row + d};
        }
        PackLeft(g + d * ldg + i, ldg, depth, count, left, columns.all(), slots);
        const S* packed = right;
        for (const Piece& piece : pieces) {
          PackedProduct(left, count, packed, depth, terms[piece.term], i, piece.column,
                        piece.columns, block_into);
          packed += PanelsFor(piece.columns, kPanel<S>) * kPanel<S> * depth;
        }
      }
    }
    first = false;
  });
}

template class PackedMatrix<float>;
template class PackedMatrix<double>;
template void OuterProducts(Range, int64_t, const float*, int64_t,
                            absl::Span<const OuterTerm<float>>, Into, RowSums<float>, float*);
template void OuterProducts(Range, int64_t, const double*, int64_t,
                            absl::Span<const OuterTerm<double>>, Into, RowSums<double>, double*);
template void AddColumnSums(int64_t, int64_t, const float*, int64_t, float*);
template void AddColumnSums(int64_t, int64_t, const double*, int64_t, double*);

}  // namespace gradwatch::nn
