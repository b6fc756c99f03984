#include "backend/cuda/emit.h"

#include <algorithm>

#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kMostSlots = 4096 / sizeof(std::uint64_t);  // the arguments of a launch, on every GPU
constexpr std::int64_t kNarrow = (std::int64_t{1} << 31) - (1 << 20);  // elements within int32_t, with a margin

// A kernel's text after only the headers that it uses, because NVRTC parses every line again for every kernel.
std::string whole(std::size_t slots, bool wide, const std::string& kernel) {
  const auto has = [&](const char* word) { return kernel.find(word) != std::string::npos; };
  const bool philox = has("philox::"), elementwise = has("elementwise_ops");
  std::string s = "#define OWL_SLOTS " + std::to_string(std::max<std::size_t>(1, slots)) +
                  "\nusing Index = " + (wide ? "long long" : "int") + ";\n";
  s += text::prelude;
  if (philox || elementwise || has("math::")) s += text::math;
  if (elementwise) s += text::elementwise;
  if (philox) s += text::philox;
  return s + kernel;
}

// `program` followed by `after`, whose input 0 is the former's result.
Program joined(const Program& program, const Program& after) {
  const auto inputs = program.inputs.size() + after.inputs.size() - 1;
  const auto constants = program.constants.size() + after.constants.size();
  const auto moved = [](std::size_t value, const Program& of, std::size_t input, std::size_t constant,
                        std::size_t result) {
    const auto in = of.inputs.size(), fixed = of.constants.size();
    return static_cast<std::uint16_t>(value < in           ? input + value
                                      : value < in + fixed ? constant + value - in
                                                           : result + value - in - fixed);
  };
  const auto of_first = [&](std::size_t v) { return moved(v, program, 0, inputs, inputs + constants); };
  const auto of_second = [&](std::size_t v) {
    if (v == 0) return of_first(program.outputs.back().value);
    return moved(v, after, program.inputs.size() - 1, inputs + program.constants.size(),
                 inputs + constants + program.instructions.size());
  };
  Program all = program;
  all.inputs.insert(all.inputs.end(), after.inputs.begin() + 1, after.inputs.end());
  all.constants.insert(all.constants.end(), after.constants.begin(), after.constants.end());
  for (auto& i : all.instructions)
    for (int k = 0; k < i.arity; ++k) i.in[k] = of_first(i.in[k]);
  for (auto i : after.instructions) {
    for (int k = 0; k < i.arity; ++k) i.in[k] = of_second(i.in[k]);
    all.instructions.push_back(i);
  }
  all.outputs = after.outputs;
  for (auto& out : all.outputs) out.value = of_second(out.value);
  return all;
}

}  // namespace

Emit::Emit(Resources& resources, const char* op, Source source, Launch* launch)
    : resources_(resources), op_(op), source_(source), launch_(launch) {}

Command& Emit::add() {
  Command& c = commands_.emplace_back();
  c.op = op_;
  c.source = source_;
  return c;
}

void* Emit::scratch(std::size_t bytes) { return launch_->scratch(bytes); }

void Emit::clear(void* data, std::size_t bytes) {
  Command& c = add();
  c.name = "owl_clear";
  c.kernel = clear_function(resources_);
  c.blocks = blocks_to_copy(bytes);
  c.slots = {reinterpret_cast<std::uintptr_t>(data), bytes};
}

const void* Emit::watch(std::function<std::string(std::int64_t)> message) {
  watched_.push_back({resources_.cell(), std::move(message)});
  return watched_.back().cell;
}

void Emit::call(const LibraryCall& call, std::vector<Memory> memory) {
  Command& c = add();
  c.call = &call;
  c.memory = std::move(memory);
}

void Emit::program(const Program& program, Addresses<const void*> in, Addresses<void*> out) {
  if (program.shape.size() == 0) return;
  const bool wide = program.shape.size() > kNarrow;
  const Printer printer(program, Printer::Role::kAlone, 0, std::move(in), std::move(out));
  Slots slots;
  printer.add_slots(slots);
  std::string key = wide ? "P" : "p";
  printer.add_key(key);
  Command& c = add();
  c.name = "owl_program";
  c.kernel = resources_.function(key, c.name, [&] { return whole(slots.values.size(), wide, printer.text()); });
  c.blocks = static_cast<unsigned>(printer.blocks());
  c.slots = std::move(slots.values);
}

// Slots: for each segment the block behind its last one, then each segment's own. A block finds its segment, and runs a
// block of that program. The number of segments is part of the text, so that a launch with fewer repeats the last end.
void Emit::launch_segments(std::string key, std::span<const Printer> segments) {
  Slots own;
  segments[0].add_slots(own);
  const std::size_t each = own.values.size(), most = std::max<std::size_t>(1, kMostSlots / (each + 1));
  const std::string text = segments[0].text("OWL_DEVICE void owl_segment(const Arguments& args, const Index block)") +
                           "OWL_KERNEL(owl_programs) {\n  int segment = 0;\n  Index begin = 0;\n"
                           "  while (block >= integer(args, segment)) begin = static_cast<Index>(integer(args, segment++));\n"
                           "  owl_segment(*reinterpret_cast<const Arguments*>(args.slot + " +
                           std::to_string(most) + " + segment * " + std::to_string(each) + "), block - begin);\n}\n";
  for (; !segments.empty(); segments = segments.subspan(std::min(most, segments.size()))) {
    Slots slots;
    std::int64_t blocks = 0;
    for (std::size_t s = 0; s < most; ++s) slots.add(blocks += s < segments.size() ? segments[s].blocks() : 0);
    for (const Printer& segment : segments.first(std::min(most, segments.size()))) segment.add_slots(slots);
    slots.values.resize(most * (each + 1));
    Command& c = add();
    c.name = "owl_programs";
    c.kernel = resources_.function("S" + key, c.name, [&] { return whole(slots.values.size(), false, text); });
    c.blocks = static_cast<unsigned>(blocks);
    c.slots = std::move(slots.values);
  }
}

void Emit::programs(std::vector<Side> all) {
  std::vector<std::pair<std::string, std::vector<Printer>>> by_key;  // where arrays begin makes programs differ, too
  for (Side& side : all) {
    if (side.program->shape.size() == 0) continue;
    Printer printer(*side.program, Printer::Role::kAlone, 0, std::move(side.in), std::move(side.out));
    std::string key;
    printer.add_key(key);
    auto known = std::ranges::find(by_key, key, &std::pair<std::string, std::vector<Printer>>::first);
    if (known == by_key.end()) known = by_key.insert(known, {std::move(key), {}});
    known->second.push_back(std::move(printer));
  }
  for (auto& [key, segments] : by_key) launch_segments(std::move(key), segments);
}

void Emit::finish(const Program& program, Addresses<const void*> in, Addresses<void*> out) {
  if (!after_.program) return this->program(program, std::move(in), std::move(out));
  in.insert(in.end(), after_.in.begin() + 1, after_.in.end());
  this->program(joined(program, *after_.program), std::move(in), std::move(after_.out));
}

void Emit::launch(const KernelText& text, std::int64_t blocks, const Slots& more, bool loads, bool stores) {
  if (blocks == 0) return;
  std::int64_t largest = args_->out.shape.size();
  for (const auto& in : args_->in) largest = std::max(largest, in.shape.size());
  const bool wide = largest > kNarrow;
  Slots slots;
  slots.add(args_->in.empty() ? nullptr : static_cast<const void*>(args_->in[0].data));
  slots.add(static_cast<const void*>(args_->out.data));
  slots.values.insert(slots.values.end(), more.values.begin(), more.values.end());

  std::string key =
      std::string(wide ? "K" : "k") + text.name + "\n" + text.types + (loads ? "l" : "") + (stores ? "s" : "");
  std::string functions;
  std::optional<Printer> before, after;
  if (loads && before_.program) {
    before.emplace(*before_.program, Printer::Role::kLoad, static_cast<int>(slots.values.size()), before_.in,
                   before_.out);
    before->add_slots(slots);
    before->add_key(key);
  }
  if (stores && after_.program) {
    after.emplace(*after_.program, Printer::Role::kStore, static_cast<int>(slots.values.size()), after_.in, after_.out);
    after->add_slots(slots);
    after->add_key(key);
  }
  const auto make = [&] {
    std::string s = text.types;
    if (before)
      s += before->text();
    else if (loads)
      s += "OWL_DEVICE T load(const Arguments& args, Index i) { return pointer<const T>(args, 0)[i]; }\n";
    if (after)
      s += after->text();
    else if (stores)
      s += "OWL_DEVICE void store(const Arguments& args, Index i, R v) { pointer<R>(args, 1)[i] = v; }\n";
    return whole(slots.values.size(), wide, s += text.file);
  };
  Command& c = add();
  c.name = text.name;
  c.kernel = resources_.function(key, text.name, make);
  c.blocks = static_cast<unsigned>(blocks);
  c.slots = std::move(slots.values);
}

// 16 bytes per thread if both addresses are aligned; the first block's threads copy the remainder.
CUfunction copy_function(Resources& resources) {
  return resources.function("copy", "owl_copy", [] {
    return whole(3, true, R"(
OWL_KERNEL(owl_copy) {
  using Words = Pack<uint32_t>;
  const uint8_t* const from = pointer<const uint8_t>(args, 0);
  uint8_t* const to = pointer<uint8_t>(args, 1);
  const Index bytes = integer(args, 2);
  const bool aligned = ((args.slot[0] | args.slot[1]) & 15) == 0;
  OWL_THREADS(t) {
    const Index i = block * kBlock + t;
    if (aligned) {
      if (i < bytes / 16) reinterpret_cast<Words*>(to)[i] = reinterpret_cast<const Words*>(from)[i];
    } else {
      for (int u = 0; u < 4; ++u) {
        const Index word = (block * 4 + u) * kBlock + t;
        if (word < bytes / 4) reinterpret_cast<uint32_t*>(to)[word] = reinterpret_cast<const uint32_t*>(from)[word];
      }
    }
    if (block == 0 && t < bytes % (aligned ? 16 : 4)) to[bytes - 1 - t] = from[bytes - 1 - t];
  }
}
)");
  });
}

CUfunction clear_function(Resources& resources) {
  return resources.function("clear", "owl_clear", [] {
    return whole(2, true, R"(
OWL_KERNEL(owl_clear) {
  uint8_t* const to = pointer<uint8_t>(args, 0);
  const Index bytes = integer(args, 1);
  OWL_THREADS(t) {
    const Index i = block * kBlock + t;
    if (i < bytes / 16) reinterpret_cast<Pack<uint32_t>*>(to)[i] = Pack<uint32_t>{};
    if (block == 0 && t < bytes % 16) to[bytes - 1 - t] = 0;
  }
}
)");
  });
}

}  // namespace owl::cuda
