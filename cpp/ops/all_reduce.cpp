// The sum of arrays on several devices, on all of them.
#include "owl/collective.h"

#include <set>
#include <string>

#include "graph/node.h"
#include "runtime/engine.h"

namespace owl {

namespace {

void check(const std::vector<NArray>& arrays) {
  if (arrays.empty()) throw ValueError("all_reduce: the list is empty; it must hold an array for each device");
  const auto which = [](std::size_t i) { return "array " + std::to_string(i); };
  const NArray& first = arrays[0];
  std::set<int> taken;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const NArray& x = arrays[i];
    if (x.shape() != first.shape())
      throw ShapeError("all_reduce: " + which(0) + " has shape " + first.shape().str() + ", " + which(i) + " " +
                       x.shape().str() + "; all must have one shape");
    if (x.dtype() != first.dtype())
      throw DTypeError("all_reduce: " + which(0) + " is " + std::string(name(first.dtype())) + ", " + which(i) + " " +
                       std::string(name(x.dtype())) + "; all must have one type, see astype");
    if (!taken.insert(x.device()).second)
      throw DeviceError("all_reduce: two arrays are on device " + std::to_string(x.device()) +
                        ", " + which(i) + " and one before it; each must be on a device of its own");
  }
  if (first.dtype() == DType::kBool)
    throw DTypeError("all_reduce of bool arrays is not defined, for sums of bool are int32; use astype first");
}

// Pairs of neighbours, then pairs of their sums, and so on; from the top the sum goes back the same way. Copies are
// recorded as such, rather than left to the addition, which would keep them for as long as the operand lives.
std::vector<NArray> reduce_by_tree(std::vector<NArray> sums) {
  const std::size_t count = sums.size();
  std::size_t apart = 1;
  for (; apart < count; apart *= 2)
    for (std::size_t i = 0; i + apart < count; i += 2 * apart) {
      UseDevice adds(*sums[i].node()->device);
      sums[i] = sums[i] + sums[i + apart].copy_to(sums[i].device());
    }
  while (apart /= 2)
    for (std::size_t i = 0; i + apart < count; i += 2 * apart) sums[i + apart] = sums[i].copy_to(sums[i + apart].device());
  return sums;
}

}  // namespace

std::vector<NArray> all_reduce(const std::vector<NArray>& arrays) {
  check(arrays);
  return reduce_by_tree(arrays);
}

}  // namespace owl
