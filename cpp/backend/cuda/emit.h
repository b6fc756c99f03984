// What a CUDA kernel's host side sees: operands and result in device memory, and the means to add launches.
//
// Kernels are text (device/*.h), compiled when they are first needed by NVRTC for the GPU at hand (compiler.h). A
// launch names the text, what it is specialised for, and its arguments, 8 bytes each: the slots.
#pragma once

#include <cstdint>
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

class Backend;

// A kernel's text: `file` defines OWL_KERNEL(name) in terms of what `types` says ("using T = float;\n"). Two launches
// with equal texts run the same compiled code, so `types` holds only what code must be made for; lengths are slots.
struct KernelText {
  const char* name;
  std::string_view file;  // text::softmax ...
  std::string types;
};

// What one task's kernel works on. Elementwise operations in front of it and behind it are part of its launches, where
// its text reads operand 0 by load(args, i) and writes the result by store(args, i, v): see device/prelude.h.
struct Args {
  std::span<const ArrayRef> in;  // in[0].data is null where `before` computes it
  ArrayRef out;                  // out.data is null where only `after` reads it
  const Params* params = nullptr;
};

class Emit {
 public:
  // Adds a launch of blocks x kBlock threads. Slot 0 and 1, operand 0's and the result's memory, are added by this
  // function, `slots` follow from 2 on. `loads` and `stores`: whether the text uses load() and store().
  void launch(const KernelText& text, std::int64_t blocks, const Slots& slots, bool loads, bool stores);
  // Uninitialised device memory, 256-byte aligned, for this task's launches.
  void* scratch(std::size_t bytes);
  // A program as a launch of its own.
  void program(const Program& program, std::vector<const void*> in, std::vector<void*> out);
  // The last program of a kernel that calls a library, in one launch with task.after where there is one. `program`
  // reads what the library wrote and makes the kernel's result, which is task.after's input 0.
  void finish(const Program& program, std::vector<const void*> in, std::vector<void*> out);
  void clear(void* data, std::size_t bytes);
  // A call of a library (commands.h).
  void call(const LibraryCall& call, std::vector<Memory> memory);
  Resources& resources() { return resources_; }

 private:
  friend class Backend;
  Emit(Resources& resources, const char* op, Source source, Launch* launch);
  Command& add();

  Resources& resources_;
  const char* const op_;
  const Source source_;
  Launch* const launch_;
  std::vector<Command> commands_;
  const Args* args_ = nullptr;
  // The programs around the kernel, where they are part of its launches, with their operands' and results' memory.
  struct Side {
    const Program* program = nullptr;
    std::vector<const void*> in;
    std::vector<void*> out;
  };
  Side before_, after_;
};

// The texts, embedded when owl is built.
namespace text {
extern const std::string_view prelude, math, elementwise, philox;
extern const std::string_view reduce, softmax, pool, lrn, random, create, concat, add_views, matmul;
}  // namespace text

// Of this library's own: bytes from slot 0 to slot 1, and zeros.
CUfunction copy_function(Resources& resources);
CUfunction clear_function(Resources& resources);

}  // namespace owl::cuda
