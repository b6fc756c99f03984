// Joins arrays along an axis: a launch for each array, which copies the widest units to which all offsets are aligned.
#include "backend/cuda/kernels.h"
#include "ops/concat.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kEach = 4;  // units of a thread

struct Unit {
  std::int64_t bytes;
  const char* type;
};
constexpr Unit kUnits[] = {{16, "Pack<uint32_t>"}, {8, "uint64_t"}, {4, "uint32_t"}, {2, "uint16_t"}, {1, "uint8_t"}};

Unit unit_of(std::uint64_t all) {
  for (const Unit& unit : kUnits)
    if (all % static_cast<std::uint64_t>(unit.bytes) == 0) return unit;
  return kUnits[4];
}

}  // namespace

void concat(const Args& args, Emit& emit) {
  const int axis = static_cast<const ConcatParams&>(*args.params).axis;
  auto inner = static_cast<std::int64_t>(itemsize(args.out.dtype));
  for (int i = 0; i < axis; ++i) inner *= args.out.shape[i];
  const std::int64_t step = inner * args.out.shape[axis];
  char* to = args.out.as<char>();
  for (const ArrayRef& in : args.in) {
    const std::int64_t run = inner * in.shape[axis], bytes = static_cast<std::int64_t>(in.nbytes());
    if (bytes == 0) continue;
    const auto address = [](const void* p) { return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(p)); };
    const Unit unit = unit_of(address(in.data) | address(to) | static_cast<std::uint64_t>(run | step));
    Slots slots;
    slots.add(static_cast<const void*>(in.data));
    slots.add(static_cast<const void*>(to));
    slots.add(bytes / unit.bytes);
    slots.add(run / unit.bytes);
    slots.add(step / unit.bytes);
    emit.launch({"owl_concat", text::concat, std::string("using T = ") + unit.type + ";\n"},
                blocks_for((bytes / unit.bytes + kEach - 1) / kEach), slots, false, false);
    to += run;
  }
}

}  // namespace owl::cuda
