// Halves on the host, one at a time.
#include "ops/narrow.h"

namespace owl {

float to_float(Float16 x) { return narrow::widen(x); }
float to_float(BFloat16 x) { return narrow::widen(x); }
Float16 to_float16(double x) { return narrow::round(narrow::round_to_odd(x), Float16{}); }
BFloat16 to_bfloat16(double x) { return narrow::round(narrow::round_to_odd(x), BFloat16{}); }

}  // namespace owl
