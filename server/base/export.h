#ifndef GRADWATCH_SERVER_BASE_EXPORT_H_
#define GRADWATCH_SERVER_BASE_EXPORT_H_

// Marks what libgradwatch_engine.so shows to the rest of the program. Everything else in the
// arithmetic rooms is hidden, so that builds for several CPU levels can never mix.
#define GRADWATCH_ENGINE_API __attribute__((visibility("default")))

#endif  // GRADWATCH_SERVER_BASE_EXPORT_H_
