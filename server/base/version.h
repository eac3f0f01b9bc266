#ifndef GRADWATCH_SERVER_BASE_VERSION_H_
#define GRADWATCH_SERVER_BASE_VERSION_H_

namespace gradwatch {

// The release, "0.1.0", and the commit it was built from ("unknown" outside a checkout).
const char* Version();
const char* Revision();

}  // namespace gradwatch

#endif  // GRADWATCH_SERVER_BASE_VERSION_H_
