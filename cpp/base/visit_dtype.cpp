#include "base/visit_dtype.h"

#include <string>

#include "owl/error.h"

namespace owl {

void detail::refuse_dtype(const char* what, DType dtype) {
  throw DTypeError(std::string(what) + ": not computed in " + std::string(name(dtype)) + "; use astype first");
}

}  // namespace owl
