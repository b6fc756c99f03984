// An array added to a view of a value.
#include "ops/add_view.h"

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kEach = 4;  // elements of a thread

}  // namespace

void add_view(const Args& args, Emit& emit) {
  const ArrayRef& x = args.in[1];
  const auto& p = static_cast<const AddViewParams&>(*args.params);
  if (args.in[0].data != args.out.data) {
    Program same;
    same.shape = args.out.shape;
    same.inputs.push_back({args.out.dtype, args.out.shape.dense_strides(), true});
    same.outputs.push_back({0, args.out.dtype});
    emit.program(same, {args.in[0].data}, {args.out.data});
  }
  const std::int64_t size = x.shape.size();
  if (size == 0) return;
  Slots slots;
  slots.add(static_cast<const void*>(x.data));
  slots.add(static_cast<const void*>(args.out.as<char>() + p.offset * static_cast<std::int64_t>(itemsize(x.dtype))));
  slots.add(size);
  for (int axis = 0; axis < kMaxAxes; ++axis) slots.add(x.shape.at_or_one(axis));
  for (int axis = 0; axis < kMaxAxes; ++axis)
    slots.add(axis < x.shape.ndim() ? p.strides[static_cast<std::size_t>(axis)] : std::int64_t{0});
  emit.launch({"owl_add_view", text::add_view, std::string("using T = ") + type_name(x.dtype) + ";\n"},
              blocks_for((size + kEach - 1) / kEach), slots, false, false);
}

}  // namespace owl::cuda
