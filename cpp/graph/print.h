// What is shown of an array: all its elements, or of a large one those at the edges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/module_api.h"
#include "owl/narray.h"

namespace owl {

// A copy in host memory, dense and column-major. Where it is cut, an axis longer than 2 * edge has length 2 * edge + 1:
// its first and last elements with a place between them that stands for the rest.
struct Excerpt {
  Shape shape;
  bool cut = false;
  std::vector<std::byte> values;
};

// Waits for x; copies from its device only what is shown. Cut where x has more than `threshold` elements.
OWL_MODULE_API Excerpt excerpt_of(const NArray& x, std::int64_t threshold, std::int64_t edge);

}  // namespace owl
