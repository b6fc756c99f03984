// Adds, or compares, the elements of two arrays: the bits of the elementwise operations add, maximum and minimum.
#pragma once

#include <cstdint>

#include "ops/distributed.h"
#include "owl/dtype.h"

namespace owl::mpi {

// to = a with b, of `n` elements; `to` may be a or b. `a` comes first in the order of ranks.
void combine(DType dtype, distributed::Combine how, void* to, const void* a, const void* b, std::int64_t n);

}  // namespace owl::mpi
