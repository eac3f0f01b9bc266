#ifndef GRADWATCH_SERVER_NN_BUFFER_H_
#define GRADWATCH_SERVER_NN_BUFFER_H_

#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

namespace gradwatch::nn {

// Sizes are multiplied and added without wrapping round: beyond INT64_MAX they stay there.
inline int64_t SaturatingMultiply(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}
inline int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

// A zeroed array of fixed size on a cache-line boundary. std::bad_alloc where memory cannot be had.
//
// Large arrays ask for large pages: weights that are read at every time step leave the reach of the
// address cache in small ones. Only whole large pages are asked for, so none is held beyond the
// end.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : size_(size), data_(Allocate(size)) {
    std::uninitialized_value_construct_n(data_.get(), size);
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  static_assert(std::is_trivially_destructible_v<T>);
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kLargePage = size_t{2} << 20;

  static T* Allocate(int64_t size) {
    const size_t bytes = static_cast<size_t>(size) * sizeof(T);
    const bool large = bytes >= 2 * kLargePage;
    void* memory = nullptr;
    if (posix_memalign(&memory, large ? kLargePage : kAlignment, std::max(bytes, kAlignment)) !=
        0) {
      throw std::bad_alloc();
    }
#if defined(MADV_HUGEPAGE)
    // A wish: where the system has no large pages, small ones do.
    if (large) (void)madvise(memory, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#endif
    return static_cast<T*>(memory);
  }
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };

  int64_t size_ = 0;
  std::unique_ptr<T[], Free> data_;
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_BUFFER_H_
