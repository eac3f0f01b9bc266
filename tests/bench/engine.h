#ifndef GRADWATCH_TESTS_BENCH_ENGINE_H_
#define GRADWATCH_TESTS_BENCH_ENGINE_H_

namespace gradwatch::bench {

// The instruction set of the engine in this program, such as "x86-64-v3".
inline const char* EngineLevel() { return GRADWATCH_ENGINE_LEVEL; }

}  // namespace gradwatch::bench

#endif  // GRADWATCH_TESTS_BENCH_ENGINE_H_
