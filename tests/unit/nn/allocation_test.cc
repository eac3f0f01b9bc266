// Counts every allocation of this test program, whoever makes it, by standing in front of malloc.

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/nn/network.h"
#include "tests/unit/nn/batches.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GRADWATCH_MALLOC_IS_TAKEN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GRADWATCH_MALLOC_IS_TAKEN 1
#endif
#endif

namespace {
std::atomic<int64_t> allocations{0};
std::atomic<int64_t> allocated_bytes{0};
}  // namespace

#if !defined(GRADWATCH_MALLOC_IS_TAKEN) && defined(__GLIBC__)
#define GRADWATCH_COUNTS_MALLOC 1

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

namespace {
void Count(size_t size) {
  ++allocations;
  allocated_bytes += static_cast<int64_t>(size);
}
}  // namespace

__attribute__((visibility("default"))) void* malloc(size_t size) {
  Count(size);
  return __libc_malloc(size);
}
__attribute__((visibility("default"))) void* calloc(size_t count, size_t size) {
  Count(count * size);
  return __libc_calloc(count, size);
}
__attribute__((visibility("default"))) void* realloc(void* p, size_t size) {
  Count(size);
  return __libc_realloc(p, size);
}
__attribute__((visibility("default"))) void* aligned_alloc(size_t alignment, size_t size) {
  Count(size);
  return __libc_memalign(alignment, size);
}
__attribute__((visibility("default"))) void* memalign(size_t alignment, size_t size) {
  Count(size);
  return __libc_memalign(alignment, size);
}
__attribute__((visibility("default"))) int posix_memalign(void** p, size_t alignment, size_t size) {
  Count(size);
  *p = __libc_memalign(alignment, size);
  return *p == nullptr ? ENOMEM : 0;
}
}
#endif

namespace gradwatch::nn {
namespace {

class Allocation : public testing::TestWithParam<Cell> {
 protected:
  void SetUp() override {
#if !defined(GRADWATCH_COUNTS_MALLOC)
    GTEST_SKIP() << "malloc cannot be counted in this build";
#endif
  }
};

template <typename S>
int64_t AllocationsOfSteps(const NetworkConfig& config) {
  Network<S> network(config, 20, 30);
  network.Initialize(1);
  const Batch full = MakeBatch(config, {.rows = 20, .time_steps = 30});
  const Batch ragged = MakeBatch(config, {.rows = 17, .time_steps = 29, .ragged = true});
  const int64_t before = allocations;
  for (int step = 0; step < 10; ++step) {
    network.ForwardBackward(step % 2 == 0 ? full : ragged, Detail::kFull);
    network.Forward(ragged);
    network.Predict(full);
    network.ResetState();
  }
  return allocations - before;
}

// Products as large as these make Eigen's own allocate.
TEST_P(Allocation, StepsAllocateNothing) {
  NetworkConfig config;
  config.cell = GetParam();
  config.layers = 2;
  config.hidden = 130;
  config.features = 300;
  config.outputs = 70;
  EXPECT_EQ(AllocationsOfSteps<float>(config), 0);
  EXPECT_EQ(AllocationsOfSteps<double>(config), 0);

  config.input = Input::kEmbedding;
  config.vocabulary = 50;
  config.embedding_width = 20;
  config.loss = Loss::kCrossEntropy;
  config.loss_at = LossAt::kLastStep;
  EXPECT_EQ(AllocationsOfSteps<float>(config), 0);
}

TEST_P(Allocation, OfANetworkIsWhatMemoryBytesOfSays) {
  NetworkConfig config;
  config.cell = GetParam();
  config.layers = 3;
  config.hidden = 64;
  config.features = 10;
  const int64_t before = allocated_bytes;

  const Network<float> network(config, 32, 100);

  const auto held = static_cast<double>(allocated_bytes - before);
  EXPECT_NEAR(static_cast<double>(MemoryBytesOf(config, 32, 100, sizeof(float))), held,
              0.02 * held);
}

INSTANTIATE_TEST_SUITE_P(All, Allocation, testing::ValuesIn(kAllCells),
                         [](const auto& cell) { return NameOf(cell.param); });

}  // namespace
}  // namespace gradwatch::nn
