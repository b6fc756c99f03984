// Operations as data: one OpRecord each, defined in a family file under ops/, listed once in ops/register.cpp.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/module_api.h"
#include "graph/node.h"
#include "graph/type_rule.h"

namespace owl {

class Operand;
struct OpRecord;

// One array operand or result of a running kernel.
struct ArrayRef {
  void* data = nullptr;  // points at the first element (offset applied)
  Shape shape;
  Strides strides{};     // always filled, in elements
  DType dtype = DType::kFloat32;
  bool dense = true;     // without gaps: column-major, or channels last
  bool channels_last = false;  // dense, but in the order of channels, columns, rows, images (see channels_last_order)

  template <class T> T* as() const { return static_cast<T*>(data); }
  std::size_t nbytes() const { return static_cast<std::size_t>(shape.size()) * itemsize(dtype); }
};

// How images [W, H, C, N] lie in memory where the channels of a place are neighbours: the axes, the fastest first. A value
// may be so if only kernels read it that know this layout (OpRecord::channels_last); the planner decides, and nobody
// else ever sees it.
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

// What a kernel asks its device to do: stages that run one after another, each a number of independent chunks that
// run on any threads in any order. Chunks are cut by size, never by thread count, so that bits don't depend on it.
class Launch {
 public:
  using Body = std::function<void(std::int64_t chunk)>;
  struct Stage {
    std::int64_t chunks;
    Body body;
  };

  // Chunks should take 20 us to 2 ms each; 0 chunks is allowed.
  void stage(std::int64_t chunks, Body body) { stages.push_back({chunks, std::move(body)}); }
  // Uninitialised memory of the device, 64-byte aligned, that lives until the task ends.
  OWL_MODULE_API void* scratch(std::size_t bytes);
  // Room for the operand with this memory in a layout of the kernel's own (see Allocator::pack); null where it is to go
  // into scratch memory. If it is not `ready`, the stages fill it.
  void* packed(const void* operand, std::int64_t layout, std::size_t bytes, bool& ready);

  std::optional<std::size_t> measured;  // set: scratch() only adds up here what it is asked for
  std::vector<Stage> stages;
  std::vector<ArrayRef> operands;  // what KernelArgs::in shows, for as long as the stages run
  Device* device = nullptr;
  Task* task = nullptr;
  std::vector<std::pair<void*, std::size_t>> scratch_blocks;
  std::vector<std::pair<Storage*, std::int64_t>> packed_operands;
};

// Elements of a dense array, as they lie in memory: `count` runs of `n`, `stride` apart.
struct Ranges {
  std::int64_t begin, n, stride = 0, count = 1;
};

using ReadRanges = std::function<const void*(const Ranges&)>;
using FinishRanges = std::function<void(const Ranges&)>;

struct KernelArgs {
  std::span<const ArrayRef> in;
  ArrayRef out;
  const Params* params;
  // Elementwise operations in the same task. `read`, where set, computes operand 0 (which has no memory then): the runs
  // one after another, valid until this thread's next call; each element is asked for once. `finished`, where set, must
  // be told of every element of the result, once, when it is final.
  ReadRanges read = nullptr;
  FinishRanges finished = nullptr;
};

using InferFn = std::pair<Shape, DType> (*)(std::span<Node* const> in, const Params* params);  // throws owl errors
using KernelFn = void (*)(const KernelArgs& args, Launch& launch);  // validates nothing: infer did; only adds stages
using AcceptsFn = bool (*)(const Shape& shape, const Strides& strides, int input);
using ReadsRangesFn = bool (*)(const Shape& operand, const Params* params);
using ChannelsLastFn = unsigned (*)(std::span<const Shape> in, const Shape& out, const Params* params);
using CheckFn = void (*)(const OpRecord& op, std::span<const Operand> operands);  // throws owl errors
using CostFn = double (*)(std::span<const Shape> in, const Shape& out, const Params* params);

struct OpRecord {
  enum class Class : std::uint8_t { kElementwise, kKernel };

  const char* name;   // "matmul": in errors, logs and profiles
  const char* doc;    // one line with shapes; front ends show it
  Class cls = Class::kKernel;
  int arity = 1;      // number of array operands, -1 for any

  // kElementwise: a scalar expression, run by the fused-program interpreter (backend/cpu/tile.h).
  TypeRule rule = TypeRule::kArithmetic;
  std::uint16_t code = 0;  // index into the tile-function table
  bool in_elewise = false; // front ends offer it as elewise.<name>
  const char* parameter = nullptr;  // what the last operand is called where it may be left out: slope; and its
  double fallback = 0;              // value then
  CheckFn check = nullptr;          // what recording checks besides shapes and types

  // kKernel:
  InferFn infer = nullptr;
  KernelFn cpu = nullptr;
  AcceptsFn accepts_strided = nullptr;  // null: every operand must be dense (the planner copies where it is not)
  CostFn cost = nullptr;                // scalar operations; null: operand and result elements
  int in_place = -1;                    // the operand whose memory the result may take, when it dies here
  ReadsRangesFn reads_ranges = nullptr; // whether elementwise operations may compute operand 0 (KernelArgs::read)
  bool runs_user_code = false;          // already when it is launched, so that a launch cannot be tried
  bool copies_in = false;               // the result is copied in from another device, beside this one's own work
  bool joins_devices = false;           // operands stay on the devices where they are
  bool finishes_ranges = false;         // elementwise operations may work on the result (KernelArgs::finished)
  // Which float32 arrays may, each for itself, be channels last: bit 0 the result, bit i + 1 operand i.
  ChannelsLastFn channels_last = nullptr;
};

// Every operation, in registration order; ops/register.cpp is the only list.
OWL_MODULE_API const std::vector<const OpRecord*>& all_ops();
OWL_MODULE_API const OpRecord* find_op(std::string_view name);  // null where there is none

}  // namespace owl
