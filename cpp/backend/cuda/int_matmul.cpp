// The matrix product of int32, which no library has.
#include "backend/cuda/kernels.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kTile = 64;  // rows and columns of a block

}  // namespace

void int_matmul(const Args& args, Emit& emit) {
  const ArrayRef &a = args.in[0], &b = args.in[1];
  const auto m = args.out.shape[0], n = args.out.shape[1], depth = a.shape[1];
  Slots slots;
  slots.add(static_cast<const void*>(a.data));
  slots.add(static_cast<const void*>(b.data));
  for (const auto length : {m, n, depth, a.strides[0], a.strides[1], b.strides[0], b.strides[1]}) slots.add(length);
  const auto blocks = (m + kTile - 1) / kTile * ((n + kTile - 1) / kTile);
  emit.launch({"owl_int_matmul", text::matmul, "using T = int32_t;\nusing R = int32_t;\n"}, blocks, slots, false, true);
}

}  // namespace owl::cuda
