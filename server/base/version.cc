#include "server/base/version.h"

namespace gradwatch {

const char* Version() { return GRADWATCH_VERSION; }
const char* Revision() { return GRADWATCH_REVISION; }

}  // namespace gradwatch
