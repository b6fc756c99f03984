// Normalisation of rows: chooses the number of threads of a row (see device/norm.h).
#include "ops/norm.h"

#include <algorithm>

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kFullThreads = 1 << 16;  // enough to fill a GPU
constexpr std::int64_t kMostPerThread = 32;     // elements; beyond that prefer more lanes
constexpr std::int64_t kLeastPerThread = 4;     // elements, to outweigh joining the lanes
constexpr std::int64_t kColumns = 32;           // of a block that adds the gradients of weights
constexpr std::int64_t kMostParts = 128;        // that the last launch joins

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Rows {
  std::int64_t length, rows;

  explicit Rows(const Shape& x) : length(x[0]), rows(x.size() / std::max<std::int64_t>(1, x[0])) {}
  std::int64_t lanes() const {
    std::int64_t n = 1;
    while (n < kBlock && (length > kMostPerThread * n || (n < 8 && length > kLeastPerThread * n) ||
                          (length > kLeastPerThread * n && rows * n < kFullThreads)))
      n *= 2;
    return n;
  }
};

std::string types(DType dtype, std::int64_t lanes, const char* which) {
  return std::string("using T = ") + type_name(dtype) + ";\nusing R = T;\nconstexpr int kLanes = " +
         std::to_string(lanes) + ";\n#define " + which + "\n";
}

double eps_of(const Args& args) { return static_cast<const NormParams&>(*args.params).eps; }

// Adds the gradients of weight and bias: parts of the rows, then the parts.
void add_weight_gradients(const Args& args, const Rows& r, const void* stats, Emit& emit) {
  const DType dtype = args.in[1].dtype;
  const std::int64_t blocks = ceil_div(r.length, kColumns);
  const std::int64_t parts = std::clamp<std::int64_t>(r.rows / 64, 1, kMostParts), part = ceil_div(r.rows, parts);
  void* const partial = emit.scratch(static_cast<std::size_t>(parts * 2 * r.length) * sizeof(double));
  Slots slots;
  slots.add(r.length);
  slots.add(r.rows);
  slots.add(static_cast<const void*>(args.in[1].data));
  slots.add(stats);
  slots.add(static_cast<const void*>(partial));
  slots.add(part);
  slots.add(blocks);
  emit.launch({"owl_norm_back_weight", text::norm, types(dtype, 1, "OWL_NORM_BACK_WEIGHT")}, blocks * parts, slots,
              false, false);
  Slots join;
  join.add(r.length);
  join.add(parts);
  join.add(static_cast<const void*>(partial));
  join.add(static_cast<const void*>(args.results[1].data));
  join.add(static_cast<const void*>(args.results[2].data));
  emit.launch({"owl_norm_join", text::norm, types(dtype, 1, "OWL_NORM_JOIN")}, ceil_div(r.length, kBlock), join, false,
              false);
}

}  // namespace

void layer_norm(const Args& args, Emit& emit) {
  const Rows r(args.out.shape);
  const std::int64_t lanes = r.lanes();
  Slots slots;
  slots.add(r.length);
  slots.add(r.rows);
  slots.add(eps_of(args));
  slots.add(static_cast<const void*>(args.in[1].data));
  slots.add(static_cast<const void*>(args.in[2].data));
  emit.launch({"owl_layer_norm", text::norm, types(args.out.dtype, lanes, "OWL_NORM")},
              ceil_div(r.rows * lanes, kBlock), slots, true, true);
}

void layer_norm_back(const Args& args, Emit& emit) {
  const Rows r(args.in[1].shape);
  const std::int64_t lanes = r.lanes();
  void* const stats = emit.scratch(static_cast<std::size_t>(2 * r.rows) * sizeof(double));
  Slots slots;
  slots.add(r.length);
  slots.add(r.rows);
  slots.add(eps_of(args));
  slots.add(static_cast<const void*>(args.in[1].data));
  slots.add(static_cast<const void*>(args.in[2].data));
  slots.add(static_cast<const void*>(args.results[0].data));
  slots.add(static_cast<const void*>(stats));
  emit.launch({"owl_norm_back", text::norm, types(args.in[1].dtype, lanes, "OWL_NORM_BACK")},
              ceil_div(r.rows * lanes, kBlock), slots, false, false);
  if (args.results[1].data || args.results[2].data) add_weight_gradients(args, r, stats, emit);
}

}  // namespace owl::cuda
