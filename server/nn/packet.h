#ifndef GRADWATCH_SERVER_NN_PACKET_H_
#define GRADWATCH_SERVER_NN_PACKET_H_

#include <cstdint>
#include <type_traits>

#include "Eigen/Core"

namespace gradwatch::nn {

// Vector arithmetic for the element-wise loops: thin names over Eigen's packets. A loop's last,
// partial packet runs through the same instructions as the others, so a value never depends on
// where in a buffer it stands.

namespace packet = Eigen::internal;

template <typename S>
using Packet = typename packet::packet_traits<S>::type;
template <typename S>
constexpr int kLanes = packet::packet_traits<S>::size;

struct AllLanes {};
struct SomeLanes {
  int count;
};

template <typename S>
inline Packet<S> Load(const S* from, AllLanes) {
  return packet::ploadu<Packet<S>>(from);
}
template <typename S>
inline Packet<S> Load(const S* from, SomeLanes lanes) {
  S padded[kLanes<S>] = {};
  for (int i = 0; i < lanes.count; ++i) padded[i] = from[i];
  return packet::ploadu<Packet<S>>(padded);
}
template <typename S>
inline void Store(S* to, const Packet<S>& value, AllLanes) {
  packet::pstoreu(to, value);
}
template <typename S>
inline void Store(S* to, const Packet<S>& value, SomeLanes lanes) {
  S padded[kLanes<S>];
  packet::pstoreu(padded, value);
  for (int i = 0; i < lanes.count; ++i) to[i] = padded[i];
}

// Zeroes what lies behind the lanes.
template <typename S>
inline Packet<S> FirstLanes(const Packet<S>& value, AllLanes) {
  return value;
}
template <typename S>
inline Packet<S> FirstLanes(const Packet<S>& value, SomeLanes lanes) {
  S padded[kLanes<S>];
  packet::pstoreu(padded, value);
  return Load<S>(padded, lanes);
}

// Calls body(j, lanes) for packets that start at j = 0, kLanes, … and together cover [0, n).
template <typename S, typename Body>
inline void ForPackets(int64_t n, Body&& body) {
  int64_t j = 0;
  for (; j + kLanes<S> <= n; j += kLanes<S>) body(j, AllLanes{});
  if (j < n) body(j, SomeLanes{static_cast<int>(n - j)});
}

// sum [n] += values [n].
template <typename S>
inline void AddTo(S* sum, const S* values, int64_t n) {
  ForPackets<S>(n, [&](int64_t j, auto lanes) {
    Store<S>(sum + j, packet::padd(Load<S>(sum + j, lanes), Load<S>(values + j, lanes)), lanes);
  });
}

template <typename S>
inline Packet<S> Constant(double value) {
  return packet::pset1<Packet<S>>(static_cast<S>(value));
}

// 1 / (1 + exp(-x)).
template <typename S>
inline Packet<S> Sigmoid(const Packet<S>& x) {
  if constexpr (std::is_same_v<S, float>) {
    return packet::scalar_logistic_op<float>().packetOp(x);
  } else {
    const Packet<S> one = Constant<S>(1.0);
    return packet::pdiv(one, packet::padd(one, packet::pexp(packet::pnegate(x))));
  }
}

// In double: the rational approximation of Cephes (Moshier, "Methods and programs for mathematical
// functions", 1989) near zero, the exponential beyond. Error below 2 ulp.
template <typename S>
inline Packet<S> Tanh(const Packet<S>& x) {
  if constexpr (std::is_same_v<S, float>) {
    return packet::ptanh(x);
  } else {
    const Packet<S> one = Constant<S>(1.0);
    const Packet<S> z = packet::pmul(x, x);
    Packet<S> p = Constant<S>(-9.64399179425052238628e-1);
    p = packet::pmadd(p, z, Constant<S>(-9.92877231001918586564e1));
    p = packet::pmadd(p, z, Constant<S>(-1.61468768441708447952e3));
    Packet<S> q = packet::padd(z, Constant<S>(1.12811678491632931402e2));
    q = packet::pmadd(q, z, Constant<S>(2.23548839060100448583e3));
    q = packet::pmadd(q, z, Constant<S>(4.84406305325125486048e3));
    const Packet<S> near = packet::pmadd(packet::pmul(x, z), packet::pdiv(p, q), x);

    const Packet<S> magnitude = packet::pabs(x);
    const Packet<S> e = packet::pexp(packet::padd(magnitude, magnitude));
    const Packet<S> far = packet::psub(one, packet::pdiv(Constant<S>(2.0), packet::padd(e, one)));
    const Packet<S> sign = packet::pand(x, Constant<S>(-0.0));
    return packet::pselect(packet::pcmp_le(Constant<S>(0.625), magnitude), packet::por(far, sign),
                           near);
  }
}

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_PACKET_H_
