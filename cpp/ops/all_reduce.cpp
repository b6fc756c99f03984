// The sum of arrays on several devices, on all of them.
#include "ops/all_reduce.h"

#include <map>
#include <set>
#include <string>

#include "device/device.h"
#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"
#include "owl/collective.h"

namespace owl {

namespace {

void check(const std::vector<NArray>& arrays) {
  if (arrays.empty()) throw ValueError("all_reduce: the list is empty; it must hold an array for each device");
  const auto which = [](std::size_t i) { return "array " + std::to_string(i); };
  const NArray& first = arrays[0];
  std::map<int, std::size_t> taken;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const NArray& x = arrays[i];
    if (x.shape() != first.shape())
      throw ShapeError("all_reduce: " + which(0) + " has shape " + first.shape().str() + ", " + which(i) + " " +
                       x.shape().str() + "; all must have one shape");
    if (x.dtype() != first.dtype())
      throw DTypeError("all_reduce: " + which(0) + " is " + std::string(name(first.dtype())) + ", " + which(i) + " " +
                       std::string(name(x.dtype())) + "; all must have one type, see astype");
    const auto [before, free] = taken.emplace(x.device(), i);
    if (!free)
      throw DeviceError("all_reduce: " + which(before->second) + " and " + which(i) + " are both on device " +
                        std::to_string(x.device()) + "; each must be on a device of its own");
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
    for (std::size_t i = 0; i + apart < count; i += 2 * apart)
      sums[i + apart] = sums[i].copy_to(sums[i + apart].device());
  return sums;
}

// On GPUs, each a card of its own, NCCL does it.
bool library_can(const std::vector<NArray>& arrays) {
  std::set<int> gpus;
  for (const auto& x : arrays) gpus.insert(x.node()->device->backend->gpu());
  return arrays.size() > 1 && gpus.size() == arrays.size() && *gpus.begin() >= 0 && arrays[0].node()->device->backend->has_all_reduce();
}

Results same_type(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

std::vector<NArray> reduce_by_library(const std::vector<NArray>& arrays) {
  const auto round = std::make_shared<AllReduceRound>();
  std::vector<NArray> operands, sums;
  std::vector<Node*> nodes;
  for (const auto& x : arrays) {
    UseDevice there(*x.node()->device);
    operands.push_back(dense(x));
    nodes.push_back(operands.back().node());
  }
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    UseDevice there(*nodes[i]->device);
    sums.push_back(record(op_all_reduce, nodes, std::make_shared<AllReduceParams>(i, round)));
  }
  return sums;
}

// Of the sum on one device: every operand gets the error, copied to its device.
constexpr Gradient all_reduce_gradient{{}, [](Rule& r) {
  for (std::size_t i = 0; i < r.operand_count(); ++i) r.to(i, r.error());
}};

}  // namespace

const OpRecord op_all_reduce{.name = "all_reduce",
                             .doc = "the sum of arrays on several GPUs, on one of them: recorded for each",
                             .arity = -1,
                             .infer = same_type,
                             .joins_devices = true,
                             .gradient = &all_reduce_gradient};

std::vector<NArray> all_reduce(const std::vector<NArray>& arrays) {
  check(arrays);
  return library_can(arrays) ? reduce_by_library(arrays) : reduce_by_tree(arrays);
}

}  // namespace owl
