// Pooling and its gradient: a thread for each result.
#include <algorithm>
#include <initializer_list>

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "ops/nn.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kSmallWindow = 9;   // elements: small enough to search again for each of them
constexpr std::int64_t kNarrow = 1 << 28;  // an int32_t holds sums of a few such lengths

// Windows, strides and padding may be larger than any array.
const char* coordinate(const PoolGeometry& g, const Args& args) {
  const auto largest = std::max({args.in[0].shape.size(), args.out.shape.size(), g.window_x, g.window_y, g.stride_x,
                                 g.stride_y, g.pad_x, g.pad_y});
  return largest <= kNarrow ? "int32_t" : "int64_t";
}

// A launch with a thread for each of `size` elements.
void launch(const char* name, const std::string& which, const PoolGeometry& g, std::int64_t size,
            std::initializer_list<const void*> more, bool stores, const Args& args, Emit& emit) {
  Slots slots;
  for (const auto n : {size, g.width, g.height, g.out_width, g.out_height, g.window_x, g.window_y, g.stride_x,
                       g.stride_y, g.pad_x, g.pad_y})
    slots.add(n);
  for (const void* const memory : more) slots.add(memory);
  const std::string types = std::string("using T = ") + type_name(args.out.dtype) +
                            ";\nusing R = T;\nusing Coordinate = " + coordinate(g, args) + ";\n#define " + which + "\n";
  emit.launch({name, text::pool, types}, blocks_for(size), slots, false, stores);
}

void max_back(const PoolGeometry& g, const Args& args, Emit& emit) {
  const auto results = args.out.shape.size(), windows = args.in[0].shape.size();
  const void* const x = args.in[1].data;
  if (g.window_x <= g.stride_x && g.window_y <= g.stride_y && g.window_x * g.window_y <= kSmallWindow)
    return launch("owl_pool_max_back_apart", "OWL_MAX_BACK_APART", g, results, {x}, true, args, emit);
  const void* const places = emit.scratch(static_cast<std::size_t>(windows) * sizeof(std::int64_t));
  launch("owl_pool_places", "OWL_PLACES", g, windows, {places, x}, false, args, emit);
  launch("owl_pool_max_back", "OWL_MAX_BACK", g, results, {places}, true, args, emit);
}

}  // namespace

void pool(const Args& args, Emit& emit) {
  const auto& p = static_cast<const PoolParams&>(*args.params).pooler;
  const std::string maximum = p.op == conv::PoolOp::kMax ? "true" : "false";
  launch("owl_pool", "OWL_POOL\nconstexpr bool kMaximum = " + maximum + ";", pool_geometry(p, args.in[0].shape),
         args.out.shape.size(), {}, true, args, emit);
}

void pool_back(const Args& args, Emit& emit) {
  const auto& p = static_cast<const PoolParams&>(*args.params);
  const auto g = pool_geometry(p.pooler, p.x);
  if (p.pooler.op == conv::PoolOp::kMax) return max_back(g, args, emit);
  launch("owl_pool_average_back", "OWL_AVERAGE_BACK", g, args.out.shape.size(), {}, true, args, emit);
}

}  // namespace owl::cuda
