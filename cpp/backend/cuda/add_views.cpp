// Arrays added into one, each in its place: a launch for each, one after another, as they overlap.
#include "ops/add_views.h"

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kEach = 4;  // elements of a thread

void add(const ArrayRef& x, std::int64_t offset, const Strides& strides, const ArrayRef& out, Emit& emit) {
  const std::int64_t size = x.shape.size();
  if (size == 0) return;
  Slots slots;
  slots.add(static_cast<const void*>(x.data));
  slots.add(static_cast<const void*>(out.as<char>() + offset * static_cast<std::int64_t>(itemsize(x.dtype))));
  slots.add(size);
  for (int axis = 0; axis < kMaxAxes; ++axis) slots.add(x.shape.at_or_one(axis));
  for (int axis = 0; axis < kMaxAxes; ++axis)
    slots.add(axis < x.shape.ndim() ? strides[static_cast<std::size_t>(axis)] : std::int64_t{0});
  emit.launch({"owl_add_views", text::add_views, std::string("using T = ") + type_name(x.dtype) + ";\n"},
              blocks_for((size + kEach - 1) / kEach), slots, false, false);
}

}  // namespace

void add_views(const Args& args, Emit& emit) {
  const auto& p = static_cast<const AddViewsParams&>(*args.params);
  if (!p.onto) {
    emit.clear(args.out.data, args.out.nbytes());
  } else if (args.in[0].data != args.out.data) {
    Program same;
    same.shape = args.out.shape;
    same.inputs.push_back({args.out.dtype, args.out.shape.dense_strides(), true});
    same.outputs.push_back({0, args.out.dtype});
    emit.program(same, {args.in[0].data}, {args.out.data});
  }
  for (std::size_t i = 0; i < p.places.size(); ++i)
    add(args.in[i + p.onto], p.places[i].first, p.places[i].second, args.out, emit);
}

}  // namespace owl::cuda
