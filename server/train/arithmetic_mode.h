#ifndef GRADWATCH_SERVER_TRAIN_ARITHMETIC_MODE_H_
#define GRADWATCH_SERVER_TRAIN_ARITHMETIC_MODE_H_

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace gradwatch::train {

// While it lives, this thread rounds to nearest, raises no floating-point
// exception and takes denormal numbers for zero: vanishing gradients make many
// of them and each costs dearly. The whole mode is set, not only the one bit,
// so results do not depend on the thread they run on. The destructor puts back
// what was there.
class ArithmeticMode {
 public:
#if defined(__x86_64__)
  ArithmeticMode() : before_(_mm_getcsr()) {
    _mm_setcsr(kMasked | kFlushToZero | kDenormalsAreZero);
  }
  ~ArithmeticMode() { _mm_setcsr(before_); }

 private:
  static constexpr uint32_t kMasked = 0x1F80;
  static constexpr uint32_t kFlushToZero = 0x8000;
  static constexpr uint32_t kDenormalsAreZero = 0x0040;
  const uint32_t before_;
#elif defined(__aarch64__)
  ArithmeticMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(kFlushToZero));
  }
  ~ArithmeticMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  static constexpr uint64_t kFlushToZero = uint64_t{1} << 24;
  uint64_t before_;
#else
  ArithmeticMode() {}
  ~ArithmeticMode() {}
#endif

 public:
  ArithmeticMode(const ArithmeticMode&) = delete;
  ArithmeticMode& operator=(const ArithmeticMode&) = delete;
};

}  // namespace gradwatch::train

#endif  // GRADWATCH_SERVER_TRAIN_ARITHMETIC_MODE_H_
