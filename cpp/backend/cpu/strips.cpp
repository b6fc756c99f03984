#include "backend/cpu/strips.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "backend/cpu/interpreter.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/run_program.h"
#include "backend/cpu/strip_kernel.h"
#include "plan/task.h"

namespace owl::cpu {

namespace {

constexpr std::size_t kAlign = 64;
std::size_t padded(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

void set_images(Shape& shape, std::int64_t images) { shape = shape.with(shape.ndim() - 1, images); }

std::shared_ptr<const Program> for_images(const Program& program, std::int64_t images) {
  auto cut = std::make_shared<Program>(program);
  set_images(cut->shape, images);
  return cut;
}

class Work {
 public:
  Work(const Strips& strips, Task& task, Launch& launch) : strips_(strips), task_(task) {
    for (const auto bytes : strips.bytes) {
      offsets_.push_back(bytes_);
      bytes_ += padded(bytes);
    }
    members_.reserve(strips.members.size());  // kernels refer to their arrays
    for (const auto& member : strips.members) add(member, launch);
  }

  std::int64_t count() const { return (strips_.images + strips_.strip - 1) / strips_.strip; }

  void run(std::int64_t strip) const {
    static thread_local Arena arena;
    auto* const memory = reinterpret_cast<std::byte*>(arena.at_least(bytes_));
    const auto first = strip * strips_.strip;
    const Strip at{memory, first, std::min(strips_.strip, strips_.images - first)};
    for (const auto& member : members_) run(member, at);
  }

  void end(Launch& launch) const {
    for (const auto& member : members_)
      if (member.kernel.end) member.kernel.end(launch);
  }

 private:
  // A program for a strip, and for the last one.
  struct CutProgram {
    std::shared_ptr<const Program> full{}, rest{};
  };
  struct Member {
    const Strips::Member& plan;
    Strips::Sides sides;
    bool sums;                  // its result is whole
    std::vector<ArrayRef> in{}; // of the kernel, whole
    StripKernel kernel{};
    CutProgram before{}, after{};
    std::size_t scratch = 0;    // where the kernel's result is in a strip, if no result has its memory
  };
  struct Strip {
    std::byte* memory;  // of this thread
    std::int64_t first, images;
  };

  void add(const Strips::Member& plan, Launch& launch) {
    Member& member = members_.emplace_back(Member{plan, Strips::sides_of(plan), !plan.outputs.back().place.cut});
    if (plan.before) member.before = cut(*plan.before);
    if (plan.after && !member.sums) member.after = cut(*plan.after);
    if (!plan.op) return;
    if (plan.before) member.in.push_back(kernel_operand(*plan.before));
    for (const auto& array : member.sides.kernel_inputs) {
      member.in.push_back(array.whole);
      if (!array.place.cut) member.in.back().data = data_of(array.place);
    }
    KernelArgs args{member.in, result_of(plan), plan.params.get()};
    if (member.sums) {
      args.out.data = plan.kernel_output >= 0 ? data_of(plan.outputs[static_cast<std::size_t>(plan.kernel_output)].place)
                                              : launch.scratch(args.out.nbytes());
      if (plan.after) args.finished = whole_after(member, args.out.data);
    } else if (plan.kernel_output < 0) {
      member.scratch = bytes_;
      bytes_ += padded(args.out.nbytes() / static_cast<std::size_t>(strips_.images) *
                       static_cast<std::size_t>(strips_.strip));
    }
    member.kernel = kernel_of(*plan.op).in_strips(args, launch);
  }

  CutProgram cut(const Program& program) const {
    const auto rest = strips_.images % strips_.strip;
    return {for_images(program, strips_.strip), rest ? for_images(program, rest) : nullptr};
  }

  // The kernel's result: it has the shape and layout of what the program behind makes of it.
  static ArrayRef result_of(const Strips::Member& plan) {
    ArrayRef out = plan.outputs.back().whole;
    if (plan.after) out.dtype = plan.after->inputs[0].dtype;
    return out;
  }

  // --- addresses

  void* data_of(const StripPlace& place) const {
    return (place.in == StripPlace::In::kOperand ? task_.inputs : task_.outputs)[place.index].array.data;
  }

  // Of the strip's images, `step` elements apart.
  void* data_of(const Strips::Array& array, std::int64_t step, const Strip& at) const {
    if (array.place.in == StripPlace::In::kStrip) return at.memory + offsets_[array.place.index];
    const auto elements = array.place.cut ? at.first * step : 0;
    return static_cast<std::byte*>(data_of(array.place)) +
           elements * static_cast<std::int64_t>(itemsize(array.whole.dtype));
  }
  void* data_of(const Strips::Array& array, const Strip& at) const {
    return data_of(array, step_of(array.whole.strides, array.whole.shape), at);
  }

  static std::int64_t step_of(const Strides& strides, const Shape& shape) {
    return strides[static_cast<std::size_t>(shape.ndim() - 1)];
  }

  // The operands of a program, from its input `from` on, and the results of a part.
  Addresses<const void*> reads(const Program& program, std::size_t from, std::span<const Strips::Array> arrays,
                               const Strip& at) const {
    Addresses<const void*> in;
    for (std::size_t i = 0; i < arrays.size(); ++i)
      in.push_back(data_of(arrays[i], step_of(program.inputs[from + i].strides, program.shape), at));
    return in;
  }
  Addresses<void*> writes(std::span<const Strips::Array> arrays, const Strip& at) const {
    Addresses<void*> out;
    for (const auto& array : arrays) out.push_back(data_of(array, at));
    return out;
  }

  FinishRanges whole_after(const Member& member, const void* result) const {
    Addresses<const void*> in(1, result);
    Addresses<void*> out;
    for (const auto& array : member.sides.after_inputs) in.push_back(data_of(array.place));
    for (const auto& array : member.sides.outputs) out.push_back(data_of(array.place));
    return finish_program(*member.plan.after, std::move(in), std::move(out));
  }

  // --- a member's strip

  void run(const Member& member, const Strip& at) const {
    const auto& [before_inputs, kernel_inputs, after_inputs, before_outputs, outputs] = member.sides;
    const bool full = at.images == strips_.strip;
    const auto program_of = [full](const CutProgram& cut) { return (full ? cut.full : cut.rest).get(); };
    const Program *const before = program_of(member.before), *const after = program_of(member.after);
    if (!member.plan.op)
      return run_program(*before, reads(*before, 0, before_inputs, at).data(), writes(before_outputs, at).data());
    std::vector<ArrayRef> arrays = member.in;
    if (before) arrays[0] = kernel_operand(*before);
    for (std::size_t i = 0; i < kernel_inputs.size(); ++i) {
      auto& array = arrays[i + (before ? 1 : 0)];
      if (!kernel_inputs[i].place.cut) continue;
      array.data = data_of(kernel_inputs[i], at);
      set_images(array.shape, at.images);
    }
    KernelArgs args{arrays, result_of(member.plan), member.plan.params.get()};
    if (before) args.read = read_program(*before, reads(*before, 0, before_inputs, at), writes(before_outputs, at));
    if (!member.sums) {
      const int output = member.plan.kernel_output;
      args.out.data = output < 0 ? at.memory + member.scratch
                                 : data_of(member.plan.outputs[static_cast<std::size_t>(output)], at);
      set_images(args.out.shape, at.images);
    }
    if (after) {
      auto in = reads(*after, 1, after_inputs, at);
      in.insert(in.begin(), args.out.data);
      args.finished = finish_program(*after, std::move(in), writes(outputs, at));
    }
    member.kernel.run(args, at.first);
  }

  const Strips& strips_;
  Task& task_;
  std::vector<std::size_t> offsets_;  // of the strip's values in a thread's memory
  std::size_t bytes_ = 0;             // of which it needs so many
  std::vector<Member> members_;
};

}  // namespace

void launch_strips(const Strips& strips, Task& task, Launch& launch) {
  const auto work = std::make_shared<Work>(strips, task, launch);
  launch.keep(work);
  launch.stage(work->count(), [work = work.get()](std::int64_t strip) { work->run(strip); });
  work->end(launch);
}

}  // namespace owl::cpu
