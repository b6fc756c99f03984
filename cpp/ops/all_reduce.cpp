// The sum of arrays on several devices, on all of them.
#include <map>
#include <set>
#include <string>

#include "base/fork_mutex.h"
#include "device/device.h"
#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/records.h"
#include "ops/terms.h"
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
                        std::to_string(x.device()) + "; each must be on a different device");
  }
  if (first.dtype() == DType::kBool)
    throw DTypeError("all_reduce of bool arrays is not defined, because sums of bool are int32; use astype first");
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

// Whether NCCL can sum: every array is on a different GPU. Narrow types are added as everywhere else.
bool library_can(const std::vector<NArray>& arrays) {
  if (is_narrow(arrays[0].dtype())) return false;
  std::set<int> gpus;
  for (const auto& x : arrays) gpus.insert(x.node()->device->backend->gpu());
  return arrays.size() > 1 && gpus.size() == arrays.size() && *gpus.begin() >= 0 && arrays[0].node()->device->backend->has_all_reduce();
}

Results on_each_device(std::span<Node* const> in, const Params*) {
  std::vector<ResultType> sums;
  for (const Node* x : in) sums.push_back({x->shape, x->dtype, x->device});
  return Results(sums);
}

// The sums over the same devices reach their library in the order in which they are recorded.
EffectToken& token_of(const std::vector<Node*>& operands) {
  static auto& mutex = *new ForkMutex;
  static auto& all = *new std::map<std::vector<Device*>, std::unique_ptr<EffectToken>>;
  std::vector<Device*> devices;
  for (const Node* x : operands) devices.push_back(x->device);
  {
    std::lock_guard lock(mutex);
    if (const auto known = all.find(devices); known != all.end()) return *known->second;
  }
  auto made = std::make_unique<EffectToken>();
  std::lock_guard lock(mutex);
  return *all.emplace(std::move(devices), std::move(made)).first->second;
}

std::vector<NArray> reduce_by_library(const std::vector<NArray>& arrays) {
  std::vector<NArray> operands;
  std::vector<Node*> nodes;
  for (const auto& x : arrays) {
    UseDevice there(*x.node()->device);
    operands.push_back(dense(x));
    nodes.push_back(operands.back().node());
  }
  UseDevice first(*nodes[0]->device);
  return record_effect(op_all_reduce, nodes, nullptr, token_of(nodes));
}

// Every operand is in each of the sums: it gets the errors of all, on its device.
constexpr Gradient all_reduce_gradient{{}, [](Rule& r) {
  Term error;
  for (std::size_t i = 0; i < r.operand_count(); ++i) error = add(error, r.error(i));
  for (std::size_t i = 0; i < r.operand_count(); ++i) r.to(i, error);
}};

}  // namespace

const OpRecord op_all_reduce{.name = "all_reduce",
                             .doc = "the sum of arrays on several GPUs, on each of them",
                             .arity = -1,
                             .infer = on_each_device,
                             .joins_devices = true,
                             .effect = true,
                             .gradient = &all_reduce_gradient};

std::vector<NArray> all_reduce(const std::vector<NArray>& arrays) {
  check(arrays);
  return library_can(arrays) ? reduce_by_library(arrays) : reduce_by_tree(arrays);
}

}  // namespace owl
