// A kernel's arguments, and the work that it gives its device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/module_api.h"
#include "base/recycled.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

class Device;
class Storage;
struct Params;
struct Task;

// Of a program's operands or results, in its order.
template <class P> using Addresses = RecycledVector<P>;  // P: void*, or const void*

// One array operand or result of a running kernel.
struct ArrayRef {
  void* data = nullptr;  // points at the first element (offset applied)
  Shape shape;
  Strides strides{};     // always filled, in elements
  DType dtype = DType::kFloat32;
  bool dense = true;     // contiguous: column-major, or channels last
  bool channels_last = false;  // dense, but in the order of channels, columns, rows, images (see channels_last_order)

  template <class T> T* as() const { return static_cast<T*>(data); }
  std::size_t nbytes() const { return static_cast<std::size_t>(shape.size()) * itemsize(dtype); }
  bool operator==(const ArrayRef&) const = default;
};

// The order of the axes of images [W, H, C, N] in memory with channels last, fastest first. A value may have this
// layout if only kernels that take it (KernelTraits::channels_last) read the value; the planner decides, and no script
// sees it.
inline constexpr int channels_last_order[4] = {2, 0, 1, 3};
inline Strides channels_last_strides(const Shape& shape) {
  Strides strides{};
  std::int64_t step = 1;
  for (const int axis : channels_last_order) {
    strides[static_cast<std::size_t>(axis)] = step;
    step *= shape[axis];
  }
  return strides;
}

// The work of a task: stages that run one after another, each a number of independent chunks that run on any threads in
// any order. Chunks are cut by size, never by thread count, so that bits don't depend on it.
class Launch {
 public:
  using Body = std::function<void(std::int64_t chunk)>;
  struct Stage {
    std::int64_t chunks;
    Body body;
  };

  // Chunks should take 20 us to 2 ms each; 0 chunks is allowed.
  void stage(std::int64_t chunks, Body body) { stages.push_back({chunks, std::move(body)}); }
  // What stages refer to, until the task ends.
  void keep(std::shared_ptr<const void> object) { kept.push_back(std::move(object)); }
  // Uninitialised memory of the device, 64-byte aligned, valid until the task ends.
  OWL_MODULE_API void* scratch(std::size_t bytes);
  // Memory for a copy of this operand in a kernel-specific layout (see Allocator::pack); null: use scratch memory. If
  // not `ready`, the stages fill it.
  void* packed(const void* operand, std::int64_t layout, std::size_t bytes, bool& ready);

  std::optional<std::size_t> measured;  // set for a trial launch: scratch() only adds up the requests here
  RecycledVector<Stage> stages;
  RecycledVector<std::shared_ptr<const void>> kept;
  std::vector<ArrayRef> operands, results;  // the arrays that KernelArgs::in and results refer to while the stages run
  Device* device = nullptr;
  Task* task = nullptr;
  std::vector<std::pair<void*, std::size_t>> scratch_blocks;
  std::vector<std::pair<Storage*, std::int64_t>> packed_operands;
};

// Elements of a dense array, in memory order: `count` runs of `n`, `stride` apart.
struct Ranges {
  std::int64_t begin, n, stride = 0, count = 1;
};

using ReadRanges = std::function<const void*(const Ranges&)>;
using FinishRanges = std::function<void(const Ranges&)>;

// Arguments of the CPU's kernels and of user-defined ones. Kernels validate nothing, because `infer` did, and only add
// stages.
struct KernelArgs {
  std::span<const ArrayRef> in;
  ArrayRef out;
  const Params* params;
  // For an operation with several results: all of them, in place of `out`; one without memory need not be computed.
  std::span<const ArrayRef> results{};
  // Elementwise operations in the same task. `read`, if set, computes operand 0 (which then has no memory): the runs
  // one after another, valid until this thread's next call; the kernel requests each element once. `finished`, if set,
  // must be called once for every element of the result, when it is final.
  ReadRanges read = nullptr;
  FinishRanges finished = nullptr;
};
using KernelFn = void (*)(const KernelArgs& args, Launch& launch);

}  // namespace owl
