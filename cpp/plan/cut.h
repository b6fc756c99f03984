// Where a batch of recorded operations ends.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "graph/node.h"

namespace owl::planner {

// How many of the first `most` operations are planned together. What is computed in one batch and read in the next goes
// through memory: in the second half it is the place that fewest bytes cross, the latest of such.
std::size_t cut(std::span<Node* const> recorded, std::size_t most);

// The lengths of the batches into which it cuts them all.
std::vector<std::size_t> cut_all(std::span<Node* const> recorded, std::size_t most);

}  // namespace owl::planner
