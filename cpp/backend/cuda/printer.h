// Prints a fused program as a kernel's text, with the expressions that the CPU's interpreter uses too
// (ops/elementwise.h).
#pragma once

#include <string>
#include <vector>

#include "backend/cuda/commands.h"
#include "device/launch.h"
#include "plan/program.h"

namespace owl::cuda {

// "float", "double", "int32_t", "uint8_t": the name of a type in a kernel's text (a bool is a byte).
const char* type_name(DType dtype);

class Printer {
 public:
  enum class Role {
    kAlone,  // a kernel of its own
    kLoad,   // load(args, i): returns the last output
    kStore,  // store(args, i, v): input 0 is v
  };

  // `slot` is the first free slot. `in` and `out` are the program's, except the one without memory.
  Printer(const Program& program, Role role, int slot, Addresses<const void*> in, Addresses<void*> out);

  // Appends what the text depends on, as bytes.
  void add_key(std::string& key) const;
  // `head`: of the kernel, or of a function with its arguments; a block of either is a block of the program.
  std::string text(const char* head = "OWL_KERNEL(owl_program)") const;
  void add_slots(Slots& slots) const;
  int end_slot() const { return end_slot_; }
  std::int64_t blocks() const;  // for Role::kAlone

 private:
  enum class Kind : char { kDense, kScalar, kStrided, kValue };

  std::string element_function() const;
  std::string call(const char* dense, const char* out) const;

  const Program& program_;
  const Role role_;
  const int slot_;
  Addresses<const void*> in_;
  Addresses<void*> out_;
  std::vector<Kind> kinds_;  // of inputs
  std::vector<int> in_slot_, out_slot_, constant_slot_, stride_slot_;
  std::vector<Strides> strides_;  // of strided inputs, over the merged axes
  std::int64_t lengths_[kMaxAxes] = {};
  int axes_ = 0, length_slot_ = 0, size_slot_ = 0, end_slot_ = 0;
  bool packed_ = false;  // dense arrays are read and written four elements at a time
};

}  // namespace owl::cuda
