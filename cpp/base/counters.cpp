#include "base/counters.h"

namespace owl {

Counters counters;

}  // namespace owl
