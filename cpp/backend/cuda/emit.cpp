#include "backend/cuda/emit.h"

#include <algorithm>

#include "backend/cuda/backend.h"
#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kNarrow = (std::int64_t{1} << 31) - (1 << 20);  // elements that an int32_t can number, with room

// What stands in front of a kernel.
std::string head(std::size_t slots, bool wide) {
  std::string s = "#define OWL_SLOTS " + std::to_string(std::max<std::size_t>(1, slots)) +
                  "\nusing Index = " + (wide ? "long long" : "int") + ";\n";
  for (const auto part : {text::prelude, text::math, text::elementwise, text::philox}) s += part;
  return s;
}

// cuMemsetD8Async as one of a library's calls.
class Clear final : public LibraryCall {
 public:
  void run(CUstream stream, const std::vector<Memory>& memory) const override {
    check(driver().cuMemsetD8Async(reinterpret_cast<CUdeviceptr>(memory[0].data), 0, memory[0].bytes, stream), "clear");
  }
  std::string text() const override { return "clear"; }
};

}  // namespace

Emit::Emit(Backend& backend, const char* op, Source source, Launch* launch)
    : backend_(backend), op_(op), source_(source), launch_(launch) {}

Command& Emit::add() {
  Command& c = commands_.emplace_back();
  c.op = op_;
  c.source = source_;
  return c;
}

void* Emit::scratch(std::size_t bytes) { return launch_->scratch(bytes); }

void Emit::clear(void* data, std::size_t bytes) {
  call(backend_.library_call("clear", [] { return std::make_unique<Clear>(); }), {{data, bytes, true}});
}

void Emit::call(const LibraryCall& call, std::vector<Memory> memory) {
  Command& c = add();
  c.call = &call;
  c.memory = std::move(memory);
}

void Emit::program(const Program& program, std::vector<const void*> in, std::vector<void*> out) {
  if (program.shape.size() == 0) return;
  const bool wide = program.shape.size() > kNarrow;
  const Printer printer(program, Printer::Role::kAlone, 0, std::move(in), std::move(out));
  Slots slots;
  printer.add_slots(slots);
  std::string key = wide ? "P" : "p";
  printer.add_key(key);
  Command& c = add();
  c.name = "owl_program";
  c.kernel = backend_.function(key, c.name, [&] { return head(slots.values.size(), wide) + printer.text(); });
  c.blocks = static_cast<unsigned>(printer.blocks());
  c.slots = std::move(slots.values);
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
    std::string s = head(slots.values.size(), wide) + text.types;
    if (before)
      s += before->text();
    else if (loads)
      s += "OWL_DEVICE T load(const Arguments& args, Index i) { return pointer<const T>(args, 0)[i]; }\n";
    if (after)
      s += after->text();
    else if (stores)
      s += "OWL_DEVICE void store(const Arguments& args, Index i, R v) { pointer<R>(args, 1)[i] = v; }\n";
    return s += text.file;
  };
  Command& c = add();
  c.name = text.name;
  c.kernel = backend_.function(key, text.name, make);
  c.blocks = static_cast<unsigned>(blocks);
  c.slots = std::move(slots.values);
}

CUfunction Backend::copy_function() {
  return function("copy", "owl_copy", [] {
    return head(3, true) + R"(
OWL_KERNEL(owl_copy) {
  const uint32_t* const from = pointer<const uint32_t>(args, 0);
  uint32_t* const to = pointer<uint32_t>(args, 1);
  const Index words = integer(args, 2) / 4;
  OWL_THREADS(t) for (int u = 0; u < 4; ++u) {
    const Index i = (block * 4 + u) * kBlock + t;
    if (i < words) to[i] = from[i];
  }
}
)";
  });
}

}  // namespace owl::cuda
