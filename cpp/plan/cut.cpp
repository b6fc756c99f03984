#include "plan/cut.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace owl::planner {

namespace {

// Of each operation: the last that reads its value, or itself.
std::vector<std::size_t> last_readers(std::span<Node* const> recorded) {
  std::vector<std::size_t> last(recorded.size());
  for (std::size_t i = 0; i < recorded.size(); ++i) {
    last[i] = i;
    recorded[i]->plan.index = static_cast<std::int32_t>(i);
    for (const Node* in : recorded[i]->inputs()) {
      const Node* const value = in && in->base ? in->base : in;
      if (value && value->plan.index >= 0) last[static_cast<std::size_t>(value->plan.index)] = i;
    }
  }
  for (Node* node : recorded) node->plan.index = -1;
  return last;
}

// Where a batch ends that begins at `begin` and has at most `most` operations, of which there are more.
std::size_t cut(std::span<const std::size_t> last, std::size_t begin, std::size_t most) {
  std::vector<int> change(most + 2);  // of the number of values that cross, from the place before to this one
  for (std::size_t i = 0; i < most; ++i) {  // it crosses the places from i + 1 to its last reader
    ++change[i + 1];
    --change[std::min(last[begin + i] - begin, most) + 1];
  }
  const std::size_t least = most - most / 4;
  std::size_t best = least;
  int crossing = 0, fewest = 0;
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
  return cut(last_readers(recorded), 0, most);
}

std::vector<std::size_t> cut_all(std::span<Node* const> recorded, std::size_t most) {
  std::vector<std::size_t> lengths, last;
  if (recorded.size() > most) last = last_readers(recorded);
  for (std::size_t begin = 0; begin < recorded.size(); begin += lengths.back())
    lengths.push_back(recorded.size() - begin <= most ? recorded.size() - begin : cut(last, begin, most));
  return lengths;
}

}  // namespace owl::planner
