// The interface of a CUDA kernel's host side: operands and result in device memory, and functions that add launches.
//
// Kernels are text (device/*.h), which NVRTC compiles for the GPU at the first use (compiler.h). A launch names the
// text, its specialisation, and its arguments, 8 bytes each: the slots.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cuda/commands.h"
#include "backend/cuda/resources.h"
#include "device/launch.h"
#include "graph/op.h"
#include "plan/program.h"

namespace owl::cuda {

class Printer;

class Backend;

// A kernel's text: `file` defines OWL_KERNEL(name) using the definitions in `types` ("using T = float;\n"). Two
// launches with equal texts run the same compiled code, so `types` has only what must be known at compile time; lengths
// are slots.
struct KernelText {
  const char* name;
  std::string_view file;  // text::softmax ...
  std::string types;
};

// The operands and result of a task's kernel. Elementwise operations before and after it are part of its launches if
// its text reads operand 0 by load(args, i) and writes the result by store(args, i, v): see device/prelude.h.
struct Args {
  std::span<const ArrayRef> in;  // in[0].data is null if `before` computes it
  ArrayRef out;                  // out.data is null if only `after` reads it
  const Params* params = nullptr;
  std::span<const ArrayRef> results{};  // of an operation with several, in place of `out`; without memory: not wanted
};

// What a launch may report: a number, such as an index out of range, that makes its values fail with this message.
struct Watched {
  std::int64_t* cell;  // pinned memory of the host; kNothing until a kernel writes there
  std::function<std::string(std::int64_t)> message;
  static constexpr std::int64_t kNothing = INT64_MIN;
};

class Emit {
 public:
  // Adds a launch of blocks x kBlock threads. Slot 0 and 1, operand 0's and the result's memory, are added by this
  // function, `slots` follow from 2 on. `loads` and `stores`: whether the text uses load() and store().
  void launch(const KernelText& text, std::int64_t blocks, const Slots& slots, bool loads, bool stores);
  // Uninitialised device memory, 256-byte aligned, for this task's launches.
  void* scratch(std::size_t bytes);
  // Adds a program as a separate launch.
  void program(const Program& program, Addresses<const void*> in, Addresses<void*> out);
  // A program with its operands' and results' memory.
  struct Side {
    const Program* program = nullptr;
    Addresses<const void*> in;
    Addresses<void*> out;
  };
  // Equal programs, as many in a launch as its arguments have room for.
  void programs(std::vector<Side> all);
  // Adds the last program of a kernel that calls a library, in one launch with task.after if there is one. `program`
  // reads the library's output and computes the kernel's result, which is task.after's input 0.
  void finish(const Program& program, Addresses<const void*> in, Addresses<void*> out);
  // From now on launches write to the result of these arguments, one of a kernel's several.
  void write_to(const Args& one) { args_ = &one; }
  void clear(void* data, std::size_t bytes);
  // Memory for a number that this task's launches may report: the task's values then fail with an IndexError.
  const void* watch(std::function<std::string(std::int64_t)> message);
  // Adds a library call (commands.h).
  void call(const LibraryCall& call, std::vector<Memory> memory);
  Resources& resources() { return resources_; }

 private:
  friend class Backend;
  Emit(Resources& resources, const char* op, Source source, Launch* launch);
  Command& add();
  void launch_segments(std::string key, std::span<const Printer> segments);

  Resources& resources_;
  const char* const op_;
  const Source source_;
  Launch* const launch_;
  std::vector<Command> commands_;
  std::vector<Watched> watched_;
  const Args* args_ = nullptr;
  Side before_, after_;  // the programs before and after the kernel, if they are part of its launches
};

// The kernels' texts, embedded at build time.
namespace text {
extern const std::string_view prelude, math, elementwise, philox;
extern const std::string_view reduce, scan, softmax, norm, pool, lrn, random, create, concat, add_views, matmul;
extern const std::string_view take, sort;
}  // namespace text

// owl_copy, which copies bytes from slot 0 to slot 1, and owl_clear, which writes zeros.
CUfunction copy_function(Resources& resources);
CUfunction clear_function(Resources& resources);

}  // namespace owl::cuda
