#include "server/nn/cells.h"

#include "server/base/vector.h"
#include "server/nn/packet.h"

namespace gradwatch::nn {
namespace {

using packet::padd;
using packet::pmadd;
using packet::pmul;
using packet::psub;

// x (1 - x): the derivative of the sigmoid by its value.
template <typename S>
Packet<S> SigmoidSlope(const Packet<S>& x) {
  return psub(x, pmul(x, x));
}

// 1 - x^2: the derivative of tanh by its value.
template <typename S>
Packet<S> TanhSlope(const Packet<S>& x) {
  return psub(Constant<S>(1.0), pmul(x, x));
}

template <typename S, Cell cell>
Packet<S> Activate(const Packet<S>& x) {
  if constexpr (cell == Cell::kRnnTanh) {
    return Tanh<S>(x);
  } else if constexpr (cell == Cell::kRnnSigmoid) {
    return Sigmoid<S>(x);
  } else {
    return packet::pmax(x, Constant<S>(0.0));  // In this order NaN stays NaN.
  }
}

template <typename S, Cell cell>
Packet<S> ActivationGradient(const Packet<S>& h, const Packet<S>& delta) {
  if constexpr (cell == Cell::kRnnTanh) {
    return pmul(delta, TanhSlope<S>(h));
  } else if constexpr (cell == Cell::kRnnSigmoid) {
    return pmul(delta, SigmoidSlope<S>(h));
  } else {
    return packet::pand(packet::pcmp_lt(Constant<S>(0.0), h), delta);
  }
}

// Sums the squares of one row's gradients, in double, while they are read anyway.
template <typename S, bool measure>
class SquareSum {
 public:
  void Add(const S* values, AllLanes) {
    if constexpr (measure) {
#pragma GCC unroll 4
      for (int64_t k = 0; k < kVectorSize<S>; k += kVectorSize<double>) {
        const Vector<double> wide = LoadWide(values + k);
        sum_ += wide * wide;
      }
    }
  }
  void Add(const S* values, SomeLanes lanes) {
    if constexpr (measure) {
      S padded[kVectorSize<S>];
      packet::pstoreu(padded, Load<S>(values, lanes));
      Add(padded, AllLanes());
    }
  }
  void Finish(double* to) const {
    if constexpr (measure) *to = packet::predux(Packet<double>(sum_));
  }

 private:
  Vector<double> sum_{};
};

// Calls body(row, j, lanes) for packets that cover the units of every row, beginning at unit j.
template <typename S, typename Body>
void ForUnits(const CellStep<S>& step, Body&& body) {
  for (int64_t b = 0; b < step.rows; ++b) {
    ForPackets<S>(step.units.size(),
                  [&](int64_t j, auto lanes) { body(b, step.units.begin + j, lanes); });
  }
}

template <typename S, Cell cell>
void ForwardPlain(const CellStep<S>& step) {
  ForUnits(step, [&](int64_t b, int64_t j, auto lanes) {
    const int64_t at = b * step.hidden + j;
    Store<S>(step.h + at, Activate<S, cell>(Load<S>(step.gates + at, lanes)), lanes);
  });
}

template <typename S, Cell cell, bool measure>
void BackwardPlain(const CellStep<S>& step, const S* delta_h, const DeltaSquares& squares) {
  const Range units = step.units;
  for (int64_t b = 0; b < step.rows; ++b) {
    SquareSum<S, measure> h_squares;
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t at = b * step.hidden + units.begin + packet_begin;
      const Packet<S> h = Load<S>(step.h + at, lanes);
      const Packet<S> delta = Load<S>(delta_h + at, lanes);
      h_squares.Add(delta_h + at, lanes);
      Store<S>(step.gates + at, ActivationGradient<S, cell>(h, delta), lanes);
    });
    h_squares.Finish(squares.h + b);
  }
}

// r, z = sigmoid; n = tanh(. + r * candidate); h = n + z (h_before - n). The row twice: in one pass
// the tanh would wait for r of the same units, with too little of other units' work in between.
template <typename S>
void ForwardGru(const CellStep<S>& step) {
  const int64_t hidden = step.hidden;
  const Range units = step.units;
  for (int64_t b = 0; b < step.rows; ++b) {
    S* r = step.gates + b * 3 * hidden;
    S* z = r + hidden;
    S* n = z + hidden;
    const S* candidate = step.candidate + b * hidden;
    const S* h_before = step.h_before + b * hidden;
    S* h = step.h + b * hidden;
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t j = units.begin + packet_begin;
      const Packet<S> rv = Sigmoid<S>(Load<S>(r + j, lanes));
      Store<S>(r + j, rv, lanes);
      Store<S>(z + j, Sigmoid<S>(Load<S>(z + j, lanes)), lanes);
      Store<S>(n + j, pmadd(rv, Load<S>(candidate + j, lanes), Load<S>(n + j, lanes)), lanes);
    });
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t j = units.begin + packet_begin;
      const Packet<S> nv = Tanh<S>(Load<S>(n + j, lanes));
      Store<S>(n + j, nv, lanes);
      Store<S>(h + j, pmadd(Load<S>(z + j, lanes), psub(Load<S>(h_before + j, lanes), nv), nv),
               lanes);
    });
  }
}

template <typename S, bool measure>
void BackwardGru(const CellStep<S>& step, S* delta_h, const DeltaSquares& squares) {
  const int64_t hidden = step.hidden;
  const Range units = step.units;
  for (int64_t b = 0; b < step.rows; ++b) {
    S* r = step.gates + b * 3 * hidden;
    S* z = r + hidden;
    S* n = z + hidden;
    S* candidate = step.candidate + b * hidden;
    const S* h_before = step.h_before + b * hidden;
    S* delta = delta_h + b * hidden;
    SquareSum<S, measure> h_squares;
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t j = units.begin + packet_begin;
      const Packet<S> rv = Load<S>(r + j, lanes);
      const Packet<S> zv = Load<S>(z + j, lanes);
      const Packet<S> nv = Load<S>(n + j, lanes);
      const Packet<S> d = Load<S>(delta + j, lanes);
      h_squares.Add(delta + j, lanes);
      const Packet<S> straight = pmul(d, zv);
      const Packet<S> dn = pmul(psub(d, straight), TanhSlope<S>(nv));
      const Packet<S> dz =
          pmul(pmul(d, psub(Load<S>(h_before + j, lanes), nv)), SigmoidSlope<S>(zv));
      const Packet<S> dr = pmul(pmul(dn, Load<S>(candidate + j, lanes)), SigmoidSlope<S>(rv));
      Store<S>(r + j, dr, lanes);
      Store<S>(z + j, dz, lanes);
      Store<S>(n + j, dn, lanes);
      Store<S>(candidate + j, pmul(dn, rv), lanes);
      Store<S>(delta + j, straight, lanes);
    });
    h_squares.Finish(squares.h + b);
  }
}

// i, f, o = sigmoid; g = tanh; c = f c_before + i g; h = o tanh(c). The row twice, as
// in ForwardGru: here it is tanh(c) that would wait.
template <typename S>
void ForwardLstm(const CellStep<S>& step) {
  const int64_t hidden = step.hidden;
  const Range units = step.units;
  for (int64_t b = 0; b < step.rows; ++b) {
    S* i = step.gates + b * 4 * hidden;
    S* f = i + hidden;
    S* g = f + hidden;
    S* o = g + hidden;
    const S* c_before = step.c_before + b * hidden;
    S* c = step.c + b * hidden;
    S* c_tanh = step.c_tanh + b * hidden;
    S* h = step.h + b * hidden;
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t j = units.begin + packet_begin;
      const Packet<S> iv = Sigmoid<S>(Load<S>(i + j, lanes));
      const Packet<S> fv = Sigmoid<S>(Load<S>(f + j, lanes));
      const Packet<S> gv = Tanh<S>(Load<S>(g + j, lanes));
      const Packet<S> ov = Sigmoid<S>(Load<S>(o + j, lanes));
      Store<S>(i + j, iv, lanes);
      Store<S>(f + j, fv, lanes);
      Store<S>(g + j, gv, lanes);
      Store<S>(o + j, ov, lanes);
      Store<S>(c + j, pmadd(fv, Load<S>(c_before + j, lanes), pmul(iv, gv)), lanes);
    });
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t j = units.begin + packet_begin;
      const Packet<S> tv = Tanh<S>(Load<S>(c + j, lanes));
      Store<S>(c_tanh + j, tv, lanes);
      Store<S>(h + j, pmul(Load<S>(o + j, lanes), tv), lanes);
    });
  }
}

template <typename S, bool measure>
void BackwardLstm(const CellStep<S>& step, const S* delta_h, S* delta_c,
                  const DeltaSquares& squares) {
  const int64_t hidden = step.hidden;
  const Range units = step.units;
  for (int64_t b = 0; b < step.rows; ++b) {
    S* i = step.gates + b * 4 * hidden;
    S* f = i + hidden;
    S* g = f + hidden;
    S* o = g + hidden;
    const S* c_before = step.c_before + b * hidden;
    const S* c_tanh = step.c_tanh + b * hidden;
    const S* dh = delta_h + b * hidden;
    S* dc = delta_c + b * hidden;
    SquareSum<S, measure> h_squares;
    SquareSum<S, measure> c_squares;
    ForPackets<S>(units.size(), [&](int64_t packet_begin, auto lanes) {
      const int64_t j = units.begin + packet_begin;
      const Packet<S> iv = Load<S>(i + j, lanes);
      const Packet<S> fv = Load<S>(f + j, lanes);
      const Packet<S> gv = Load<S>(g + j, lanes);
      const Packet<S> ov = Load<S>(o + j, lanes);
      const Packet<S> tv = Load<S>(c_tanh + j, lanes);
      const Packet<S> d = Load<S>(dh + j, lanes);
      h_squares.Add(dh + j, lanes);
      c_squares.Add(dc + j, lanes);
      const Packet<S> cell = pmadd(pmul(d, ov), TanhSlope<S>(tv), Load<S>(dc + j, lanes));
      Store<S>(i + j, pmul(pmul(cell, gv), SigmoidSlope<S>(iv)), lanes);
      Store<S>(f + j, pmul(pmul(cell, Load<S>(c_before + j, lanes)), SigmoidSlope<S>(fv)), lanes);
      Store<S>(g + j, pmul(pmul(cell, iv), TanhSlope<S>(gv)), lanes);
      Store<S>(o + j, pmul(pmul(d, tv), SigmoidSlope<S>(ov)), lanes);
      Store<S>(dc + j, pmul(cell, fv), lanes);
    });
    h_squares.Finish(squares.h + b);
    c_squares.Finish(squares.c + b);
  }
}

template <typename S, bool measure>
void Backward(Cell cell, const CellStep<S>& step, S* delta_h, S* delta_c,
              const DeltaSquares& squares) {
  switch (cell) {
    case Cell::kRnnTanh:
      return BackwardPlain<S, Cell::kRnnTanh, measure>(step, delta_h, squares);
    case Cell::kRnnRelu:
      return BackwardPlain<S, Cell::kRnnRelu, measure>(step, delta_h, squares);
    case Cell::kRnnSigmoid:
      return BackwardPlain<S, Cell::kRnnSigmoid, measure>(step, delta_h, squares);
    case Cell::kGru:
      return BackwardGru<S, measure>(step, delta_h, squares);
    case Cell::kLstm:
      return BackwardLstm<S, measure>(step, delta_h, delta_c, squares);
  }
}

}  // namespace

template <typename S>
void ForwardCell(Cell cell, const CellStep<S>& step) {
  switch (cell) {
    case Cell::kRnnTanh:
      return ForwardPlain<S, Cell::kRnnTanh>(step);
    case Cell::kRnnRelu:
      return ForwardPlain<S, Cell::kRnnRelu>(step);
    case Cell::kRnnSigmoid:
      return ForwardPlain<S, Cell::kRnnSigmoid>(step);
    case Cell::kGru:
      return ForwardGru(step);
    case Cell::kLstm:
      return ForwardLstm(step);
  }
}

template <typename S>
void BackwardCell(Cell cell, const CellStep<S>& step, S* delta_h, S* delta_c,
                  const DeltaSquares& squares) {
  if (squares.h == nullptr) return Backward<S, false>(cell, step, delta_h, delta_c, squares);
  Backward<S, true>(cell, step, delta_h, delta_c, squares);
}

template void ForwardCell(Cell, const CellStep<float>&);
template void ForwardCell(Cell, const CellStep<double>&);
template void BackwardCell(Cell, const CellStep<float>&, float*, float*, const DeltaSquares&);
template void BackwardCell(Cell, const CellStep<double>&, double*, double*, const DeltaSquares&);

}  // namespace gradwatch::nn
