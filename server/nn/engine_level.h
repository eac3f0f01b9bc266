#ifndef GRADWATCH_SERVER_NN_ENGINE_LEVEL_H_
#define GRADWATCH_SERVER_NN_ENGINE_LEVEL_H_

#include "server/base/export.h"

namespace gradwatch::nn {

// The CPU level of the engine that was loaded, such as "x86-64-v3"; beyond x86-64 the
// architecture's name. Needs none of the level's instructions, so it may be asked on any CPU.
GRADWATCH_ENGINE_API const char* EngineLevel();

}  // namespace gradwatch::nn

#endif  // GRADWATCH_SERVER_NN_ENGINE_LEVEL_H_
