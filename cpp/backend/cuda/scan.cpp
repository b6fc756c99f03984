// Sums so far along an axis: chooses the number of threads of a line (see device/scan.h).
#include "ops/scan.h"

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kFullThreads = 1 << 16;  // enough to fill a GPU
constexpr std::int64_t kLeastPerThread = 8;     // elements, to outweigh reading them twice

}  // namespace

void cumsum(const Args& args, Emit& emit) {
  const auto& p = static_cast<const ScanParams&>(*args.params);
  const Shape& shape = args.out.shape;
  std::int64_t inner = 1;
  for (int axis = 0; axis < p.axis; ++axis) inner *= shape[axis];
  const std::int64_t length = shape[p.axis], lines = shape.size() / length;
  std::int64_t lanes = 1;
  while (lanes < kBlock && length > kLeastPerThread * lanes && lines * lanes < kFullThreads) lanes *= 2;
  Slots slots;
  slots.add(inner);
  slots.add(length);
  slots.add(lines);
  const std::string type = type_name(args.out.dtype);
  emit.launch({"owl_cumsum", text::scan,
               "using T = " + type + ";\nusing R = T;\nconstexpr int kLanes = " + std::to_string(lanes) +
                   ";\nconstexpr bool kBackwards = " + (p.backwards ? "true" : "false") + ";\n"},
              (lines * lanes + kBlock - 1) / kBlock, slots, true, true);
}

}  // namespace owl::cuda
