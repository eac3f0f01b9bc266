#ifndef GRADWATCH_SERVER_BASE_CHECK_H_
#define GRADWATCH_SERVER_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

// Ends the process when one of our own invariants does not hold. Never for input: input gets a
// status.
#define GRADWATCH_CHECK(condition)                                                              \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition);        \
      std::abort();                                                                             \
    }                                                                                           \
  } while (false)

#endif  // GRADWATCH_SERVER_BASE_CHECK_H_
