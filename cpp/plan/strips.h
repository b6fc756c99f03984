// Kernels and programs over images that run depth first: all of them for a strip of images, then for the next strip, so
// that what flows between them stays in the cache, and what only they read never has memory of its own. Each strip runs
// on one thread. A strip is a multiple of every kernel's own chunk of images, so that no bit changes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "device/launch.h"
#include "graph/op.h"
#include "plan/program.h"

namespace owl {

// Where the array of a member of a task in strips is.
struct StripPlace {
  enum class In : std::uint8_t { kOperand, kResult, kStrip };  // of the task; kStrip: a value of its own in each strip
  In in;
  std::uint16_t index;
  bool cut;  // into strips; otherwise it is whole
  bool operator==(const StripPlace&) const = default;
};

// The operand of a kernel that the program before it computes, its last output: it has no memory.
inline ArrayRef kernel_operand(const Program& before) {
  return {nullptr, before.shape, before.shape.dense_strides(), before.outputs.back().dtype, true};
}

struct Strips {
  struct Array {
    ArrayRef whole;  // without data
    StripPlace place;
  };
  // As a task: a program, or a kernel with perhaps a program before it, after it or both.
  struct Member {
    std::shared_ptr<const Program> before;
    const OpRecord* op = nullptr;
    Source source{};  // of the kernel
    std::shared_ptr<const Params> params;
    std::shared_ptr<const Program> after;
    int kernel_output = -1;
    std::vector<Array> inputs, outputs;
  };
  // A member's arrays by the part that reads or writes them, as of a task.
  struct Sides {
    std::span<const Array> before_inputs, kernel_inputs, after_inputs, before_outputs, outputs;
  };
  static Sides sides_of(const Member& member) {
    const std::span<const Array> in(member.inputs), out(member.outputs);
    const std::size_t read = member.before ? member.before->inputs.size() : 0;
    const std::size_t written = member.before ? member.before->outputs.size() - (member.op ? 1 : 0) : 0;
    const std::size_t behind = in.size() - (member.after ? member.after->inputs.size() - 1 : 0);
    return {in.first(read), in.subspan(read, behind - read), in.subspan(behind), out.first(written), out.subspan(written)};
  }

  std::int64_t images = 0, strip = 0;  // a strip's images; the last may have fewer
  std::vector<Member> members{};       // in the order in which they run
  std::vector<std::size_t> bytes{};    // of each value of a strip
};

}  // namespace owl
