#include "server/nn/engine_level.h"

namespace gradwatch::nn {

const char* EngineLevel() { return GRADWATCH_ENGINE_LEVEL; }

}  // namespace gradwatch::nn
