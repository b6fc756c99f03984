#include "plan/cut.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace owl::planner {

namespace {

struct Value {
  std::size_t last;    // the last operation that reads it, or its own
  std::int64_t bytes;
};

std::int64_t bytes_of(const Node& node) {
  std::int64_t elements = node.results ? 0 : node.shape.size();
  if (node.results)
    for (std::uint16_t i = 0; i < node.result_count; ++i) elements += node.results[i].shape.size();
  return elements * static_cast<std::int64_t>(itemsize(node.dtype));
}

std::vector<Value> values_of(std::span<Node* const> recorded) {
  std::vector<Value> values(recorded.size());
  for (std::size_t i = 0; i < recorded.size(); ++i) {
    values[i] = {i, bytes_of(*recorded[i])};
    recorded[i]->plan.index = static_cast<std::int32_t>(i);
    for (const Node* in : recorded[i]->inputs()) {
      const Node* const value = in && in->base ? in->base : in;
      if (value && value->plan.index >= 0) values[static_cast<std::size_t>(value->plan.index)].last = i;
    }
  }
  for (Node* node : recorded) node->plan.index = -1;
  return values;
}

// Where a batch ends that begins at `begin` and has at most `most` operations, of which there are more: in its second
// half, where fewest bytes go from this batch to the next, and as late as that allows. In a loop that is often the end of
// its body.
std::size_t cut(std::span<const Value> values, std::size_t begin, std::size_t most) {
  std::vector<std::int64_t> change(most + 2);  // of the bytes that cross, from the place before to this one
  for (std::size_t i = 0; i < most; ++i) {     // a value crosses the places from i + 1 to its last reader
    const auto& [last, bytes] = values[begin + i];
    change[i + 1] += bytes;
    change[std::min(last - begin, most) + 1] -= bytes;
  }
  const std::size_t least = most - most / 2;
  std::size_t best = least;
  std::int64_t crossing = 0, fewest = 0;
  for (std::size_t end = 1; end <= most; ++end) {
    crossing += change[end];
    if (end < least || (end > least && crossing > fewest)) continue;
    best = end;
    fewest = crossing;
  }
  return best;
}

}  // namespace

std::size_t cut(std::span<Node* const> recorded, std::size_t most) {
  if (most >= recorded.size()) return recorded.size();
  return cut(values_of(recorded), 0, most);
}

std::vector<std::size_t> cut_all(std::span<Node* const> recorded, std::size_t most) {
  std::vector<std::size_t> lengths;
  std::vector<Value> values;
  if (recorded.size() > most) values = values_of(recorded);
  for (std::size_t begin = 0; begin < recorded.size(); begin += lengths.back())
    lengths.push_back(recorded.size() - begin <= most ? recorded.size() - begin : cut(values, begin, most));
  return lengths;
}

}  // namespace owl::planner
