#ifndef GRADWATCH_SERVER_NN_BUFFER_H_
#define GRADWATCH_SERVER_NN_BUFFER_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

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

// A zeroed array of fixed size on a cache-line boundary.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size)
      : size_(size), data_(new (std::align_val_t{kAlignment}) T[static_cast<size_t>(size)]()) {}

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  static constexpr size_t kAlignment = 64;
  struct Delete {
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t{kAlignment}); }
  };
  int64_t size_ = 0;
  std::unique_ptr<T[], Delete> data_;
};

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_BUFFER_H_
