// The matrix product of integers, which no library has.
#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kTile = 64;  // rows and columns of a block

}  // namespace

// The products along the axes behind the leading two are parts of one launch.
void int_matmul(const Args& args, Emit& emit) {
  const ArrayRef &a = args.in[0], &b = args.in[1];
  const auto m = args.out.shape[0], n = args.out.shape[1], depth = a.shape[1];
  Slots slots;
  slots.add(static_cast<const void*>(a.data));
  slots.add(static_cast<const void*>(b.data));
  for (const auto length : {m, n, depth, a.strides[0], a.strides[1], b.strides[0], b.strides[1]}) slots.add(length);
  std::int64_t products = 1;
  for (int i = 2; i < kMaxAxes; ++i) {
    const auto step = [&](const ArrayRef& x) {
      return x.shape.at_or_one(i) == 1 ? std::int64_t{0} : x.strides[static_cast<std::size_t>(i)];
    };
    products *= args.out.shape.at_or_one(i);
    slots.add(args.out.shape.at_or_one(i));
    slots.add(step(a));
    slots.add(step(b));
  }
  const auto blocks = (m + kTile - 1) / kTile * ((n + kTile - 1) / kTile) * products;
  emit.launch({"owl_int_matmul", text::matmul, std::string("using T = ") + type_name(args.out.dtype) + ";\nusing R = T;\n"},
              blocks, slots, false, true);
}

}  // namespace owl::cuda
