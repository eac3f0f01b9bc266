#include "tests/testing/allocation_counter.h"

#include <cstdlib>
#include <new>

namespace gradwatch::testing {
namespace {

thread_local int64_t allocations = 0;

void* Count(void* memory) {
  ++allocations;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

int64_t Allocations() { return allocations; }

void* CountedNew(std::size_t size) { return Count(std::malloc(size == 0 ? 1 : size)); }

void* CountedNew(std::size_t size, std::align_val_t alignment) {
  const std::size_t align = static_cast<std::size_t>(alignment);
  return Count(std::aligned_alloc(align, (size + align) / align * align));
}

}  // namespace gradwatch::testing

void* operator new(std::size_t size) { return gradwatch::testing::CountedNew(size); }
void* operator new[](std::size_t size) { return gradwatch::testing::CountedNew(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return gradwatch::testing::CountedNew(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return gradwatch::testing::CountedNew(size, alignment);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
