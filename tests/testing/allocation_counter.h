#ifndef GRADWATCH_TESTS_TESTING_ALLOCATION_COUNTER_H_
#define GRADWATCH_TESTS_TESTING_ALLOCATION_COUNTER_H_

#include <cstdint>

namespace gradwatch::testing {

// How often this thread has allocated through operator new so far. Link allocation_counter.cc into
// the test, which replaces the operator.
int64_t Allocations();

}  // namespace gradwatch::testing

#endif  // GRADWATCH_TESTS_TESTING_ALLOCATION_COUNTER_H_
