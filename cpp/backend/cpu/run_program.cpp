// Cuts programs into chunks and estimates their cost. interpreter.cpp runs them.
#include "backend/cpu/run_program.h"

#include <algorithm>
#include <memory>

#include "backend/cpu/cost.h"
#include "backend/cpu/interpreter.h"
#include "ops/elementwise.h"

namespace owl::cpu {

namespace {

double element_ns(const Program& program) {
  double ns = 0;
  for (const auto& i : program.inputs)
    ns += cost::kReadNs * static_cast<double>(itemsize(i.dtype)) * (i.dense ? 1 : cost::kStrided);
  for (const auto& o : program.outputs) ns += cost::kWriteNs * static_cast<double>(itemsize(o.dtype));
  for (const auto& i : program.instructions) {
    const double times = elementwise_ops::All::infos[i.code].cost;
    // Functions of float64 are calls of the C library, one element at a time.
    const bool calls = i.dtype == DType::kFloat64 && times >= cost::kLeastCallCost;
    ns += times * (calls                        ? cost::kCall64Ns
                   : i.dtype == DType::kFloat64 ? cost::kOperation64Ns
                                                : cost::kOperationNs);
  }
  return ns;
}

bool is_copy(const Program& program) {
  return program.instructions.empty() && program.inputs.size() == 1 &&
         std::ranges::all_of(program.outputs, [](const auto& o) { return o.value == 0; });
}

constexpr std::int64_t kSmall = 1 << 13;  // elements: small enough to gather from the cache

// An output that nothing reads or writes before the program has run, for a copy of an input with items of that size:
// in there the copy is overwritten by results of the same elements. Null if there is none.
void* unused_output(const Program& program, const Addresses<const void*>& inputs, const Addresses<void*>& outputs,
                    std::size_t item) {
  for (std::size_t o = 0; o < outputs.size(); ++o)
    if (itemsize(program.outputs[o].dtype) == item && std::ranges::find(inputs, outputs[o]) == inputs.end())
      return outputs[o];
  return nullptr;
}

struct CopyOf {
  std::shared_ptr<const StridedCopy> copy;  // null: nothing to copy
  void* to = nullptr;
  const void* from = nullptr;
};
struct Straight {
  std::shared_ptr<const Program> program;
  CopyOf last;
};

// The program itself, or one that reads dense copies in place of transposed inputs. Stages make the copies but the last,
// which is to be made piece by piece, each right before the program runs over its elements, in the cache.
Straight make_dense(const Program& program, Addresses<const void*>& inputs, const Addresses<void*>& outputs,
                    Launch& launch) {
  std::shared_ptr<Program> changed;
  CopyOf last;
  if (program.shape.size() > kSmall)
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto& in = program.inputs[i];
      if (in.dense) continue;
      const auto item = itemsize(in.dtype);
      auto copy = std::make_shared<const StridedCopy>(program.shape, in.strides, item);
      if (!copy->transposes()) continue;
      if (last.copy)
        launch.stage(last.copy->chunks(), [last](std::int64_t chunk) { last.copy->run(chunk, last.to, last.from); });
      void* to = unused_output(program, inputs, outputs, item);
      if (to == nullptr) to = launch.scratch(static_cast<std::size_t>(program.shape.size()) * item);
      last = {std::move(copy), to, inputs[i]};
      if (changed == nullptr) changed = std::make_shared<Program>(program);
      changed->inputs[i].dense = true;
      changed->inputs[i].strides = program.shape.dense_strides();
      inputs[i] = to;
    }
  if (changed != nullptr) return {std::move(changed), std::move(last)};
  return {{std::shared_ptr<void>(), &program}, {}};  // not owned
}

// Not make_shared: an interpreter takes some kilobytes, which malloc would look for each time.
std::shared_ptr<Interpreter> new_interpreter(const Program& program, const Addresses<const void*>& inputs,
                                             const Addresses<void*>& outputs, NanWatch* watch) {
  return {new Interpreter(program, inputs.data(), outputs.data(), watch), std::default_delete<Interpreter>(),
          RecycledBlocks<Interpreter>()};
}

}  // namespace

double program_cost_ns(const Program& program) {
  return cost::kProgramNs + cost::kInstructionNs * static_cast<double>(program.instructions.size()) +
         element_ns(program) * static_cast<double>(program.shape.size());
}

void launch_program(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs,
                    Launch& launch, NanWatch* watch) {
  if (program.shape.size() == 0) return;
  if (is_copy(program)) {
    const auto& in = program.inputs[0];
    auto copy = std::make_shared<StridedCopy>(program.shape, in.strides, itemsize(in.dtype));
    for (void* to : outputs)
      launch.stage(copy->chunks(), [copy, to, from = inputs[0]](std::int64_t chunk) { copy->run(chunk, to, from); });
    return;
  }
  // A transposed input would be gathered element by element, each from another cache line: copied by blocks first.
  const auto [straight, last] = make_dense(program, inputs, outputs, launch);
  if (straight.get() != &program) launch.keep(straight);
  const auto kept = new_interpreter(*straight, inputs, outputs, watch);
  launch.keep(kept);
  // A function of two words takes no memory of its own.
  const Interpreter* const interpreter = kept.get();
  if (last.copy) {
    launch.stage(last.copy->chunks(), [interpreter, last = last](std::int64_t chunk) {
      last.copy->run(chunk, last.to, last.from, [interpreter](const Ranges& r) { interpreter->run(r); });
    });
    return;
  }
  const std::int64_t grain = interpreter->grain(), size = interpreter->size();
  const auto wanted = static_cast<std::int64_t>(cost::kProgramChunkNs / element_ns(program));
  const std::int64_t chunk_size = std::max(std::int64_t{1}, wanted / grain) * grain;
  launch.stage((size + chunk_size - 1) / chunk_size, [interpreter, chunk_size](std::int64_t chunk) {
    interpreter->run(chunk * chunk_size, std::min(interpreter->size(), (chunk + 1) * chunk_size));
  });
}

void ProgramList::launch(std::shared_ptr<const ProgramList> list, Launch& launch) {
  std::vector<std::size_t> ends;  // of the chunks, as even in cost as whole programs can be
  double ns = 0;
  for (std::size_t p = 0; p < list->programs_.size(); ++p) {
    ns += cpu::program_cost_ns(*list->programs_[p].program);
    if (ns < cost::kProgramChunkNs && p + 1 < list->programs_.size()) continue;
    ends.push_back(p + 1);
    ns = 0;
  }
  const auto chunks = static_cast<std::int64_t>(ends.size());
  launch.stage(chunks, [list = std::move(list), ends = std::move(ends)](std::int64_t chunk) {
    const auto c = static_cast<std::size_t>(chunk);
    for (std::size_t p = c ? ends[c - 1] : 0; p < ends[c]; ++p) {
      const auto& [program, input, output] = list->programs_[p];
      if (program->shape.size() == 0) continue;
      const Interpreter interpreter(*program, list->inputs_.data() + input, list->outputs_.data() + output);
      interpreter.run(0, interpreter.size());
    }
  });
}

ReadRanges read_program(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs) {
  outputs.push_back(nullptr);
  const auto interpreter = new_interpreter(program, inputs, outputs, nullptr);
  return [interpreter, item = static_cast<std::int64_t>(itemsize(program.outputs.back().dtype))](const Ranges& ranges) {
    static thread_local Arena read;
    char* const data = read.at_least(static_cast<std::size_t>(ranges.n * ranges.count * item));
    interpreter->run(ranges, data);
    return static_cast<const void*>(data);
  };
}

FinishRanges finish_program(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs) {
  const auto interpreter = new_interpreter(program, inputs, outputs, nullptr);
  return [interpreter](const Ranges& ranges) { interpreter->run(ranges); };
}

void run_program(const Program& program, const void* const* inputs, void* const* outputs) {
  if (program.shape.size() == 0) return;
  if (is_copy(program)) {
    const auto& in = program.inputs[0];
    const StridedCopy copy(program.shape, in.strides, itemsize(in.dtype));
    for (std::size_t o = 0; o < program.outputs.size(); ++o)
      for (std::int64_t chunk = 0; chunk < copy.chunks(); ++chunk) copy.run(chunk, outputs[o], inputs[0]);
    return;
  }
  const Interpreter interpreter(program, inputs, outputs);
  interpreter.run(0, interpreter.size());
}

}  // namespace owl::cpu
