// The printed part of an array: all elements, or those at the edges of a large array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/module_api.h"
#include "owl/narray.h"

namespace owl {

// A copy in host memory, dense and column-major. If it is cut, an axis longer than 2 * edge has length 2 * edge + 1:
// its first and last elements, and between them one that stands for the rest.
struct Excerpt {
  Shape shape;
  bool cut = false;
  std::vector<std::byte> values;
};

// Waits for x; copies from its device only the printed part. Cut if x has more than `threshold` elements.
OWL_MODULE_API Excerpt excerpt_of(const NArray& x, std::int64_t threshold, std::int64_t edge);

}  // namespace owl
