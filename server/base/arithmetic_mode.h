#ifndef GRADWATCH_SERVER_BASE_ARITHMETIC_MODE_H_
#define GRADWATCH_SERVER_BASE_ARITHMETIC_MODE_H_

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace gradwatch {

// The floating-point mode of this thread: rounding, exceptions, denormal numbers. On other
// processors than these two it is left alone.
inline uint32_t ArithmeticModeBits() {
#if defined(__x86_64__)
  return _mm_getcsr();
#elif defined(__aarch64__)
  uint64_t bits;
  asm volatile("mrs %0, fpcr" : "=r"(bits));
  return static_cast<uint32_t>(bits);
#else
  return 0;
#endif
}

inline void SetArithmeticModeBits([[maybe_unused]] uint32_t bits) {
#if defined(__x86_64__)
  _mm_setcsr(bits);
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(uint64_t{bits}));
#endif
}

// While it lives, this thread rounds to nearest, raises no floating-point exception and takes
// denormal numbers for zero: vanishing gradients make many of them and each costs dearly. The whole
// mode is set, not only the one bit, so results do not depend on the thread they run on. The
// destructor puts back what was there.
class ArithmeticMode {
 public:
  ArithmeticMode() : before_(ArithmeticModeBits()) { SetArithmeticModeBits(kMode); }
  ~ArithmeticMode() { SetArithmeticModeBits(before_); }
  ArithmeticMode(const ArithmeticMode&) = delete;
  ArithmeticMode& operator=(const ArithmeticMode&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint32_t kMasked = 0x1F80;
  static constexpr uint32_t kFlushToZero = 0x8000;
  static constexpr uint32_t kDenormalsAreZero = 0x0040;
  static constexpr uint32_t kMode = kMasked | kFlushToZero | kDenormalsAreZero;
#else
  static constexpr uint32_t kMode = uint32_t{1} << 24;  // aarch64: flush to zero.
#endif
  const uint32_t before_;
};

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_ARITHMETIC_MODE_H_
