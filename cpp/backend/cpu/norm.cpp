// Normalisation of rows, in chunks of rows. The gradients of weight and bias are added in parts of few rows, and these
// in double.
#include "ops/norm.h"

#include <algorithm>

#include "backend/cpu/isa/nn_kernels.h"
#include "backend/cpu/nn.h"
#include "base/visit_dtype.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunkElements = 1 << 15;  // some tens of microseconds
constexpr std::int64_t kPartRows = 64;            // that are added in the elements' type
constexpr std::int64_t kColumns = 1024;           // that are joined in a chunk

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class T> void launch_layer_norm(const KernelArgs& args, Launch& launch) {
  const std::int64_t length = args.out.shape[0], rows = args.out.shape.size() / length;
  const std::int64_t step = std::clamp<std::int64_t>(kChunkElements / length, 1, rows);
  const T *const x = args.in[0].as<const T>(), *const weight = args.in[1].as<const T>(),
                *const bias = args.in[2].as<const T>();
  launch.stage(ceil_div(rows, step), [=, y = args.out.as<T>(), kernel = nn_table().kernels<T>().layer_norm,
                                      eps = static_cast<const NormParams&>(*args.params).eps, read = args.read,
                                      finished = args.finished](std::int64_t chunk) {
    const std::int64_t at = chunk * step * length, n = std::min(step, rows - chunk * step);
    const T* const from = read ? static_cast<const T*>(read({at, n * length})) : x + at;
    kernel(y + at, from, weight, bias, n, length, eps);
    if (finished) finished({at, n * length});
  });
}

template <class T> void launch_layer_norm_back(const KernelArgs& args, Launch& launch) {
  const Shape& shape = args.in[1].shape;
  const std::int64_t length = shape[0], rows = shape.size() / length;
  const std::int64_t part = std::clamp<std::int64_t>(kChunkElements / length, 1, kPartRows);
  const std::int64_t parts = std::max<std::int64_t>(1, ceil_div(rows, part));
  const std::int64_t together = std::max<std::int64_t>(1, kChunkElements / (part * length));
  T *const dx = args.results[0].as<T>(), *const dweight = args.results[1].as<T>();
  T* const dbias = args.results[2].as<T>();
  const auto& k = nn_table().kernels<T>();
  T* partial = nullptr;  // [part][weight, bias][element]
  if (dweight || dbias)
    partial = static_cast<T*>(launch.scratch(static_cast<std::size_t>(parts * 2 * length) * sizeof(T)));
  const T *const err = args.in[0].as<const T>(), *const x = args.in[1].as<const T>(),
                *const weight = args.in[2].as<const T>();
  launch.stage(ceil_div(parts, together), [=, kernel = k.layer_norm_back, read = args.read,
                                           eps = static_cast<const NormParams&>(*args.params).eps](std::int64_t chunk) {
    for (std::int64_t p = chunk * together; p < std::min(parts, (chunk + 1) * together); ++p) {
      const std::int64_t at = p * part * length, n = std::min(part, rows - p * part);
      T* const sums = partial ? partial + p * 2 * length : nullptr;
      if (sums) std::fill_n(sums, 2 * length, T{});
      kernel(dx ? dx + at : nullptr, sums, sums ? sums + length : nullptr,
             read ? static_cast<const T*>(read({at, n * length})) : err + at, x + at, weight, n, length, eps);
    }
  });
  if (!partial) return;
  launch.stage(ceil_div(length, kColumns), [=, sum_rows = k.sum_rows](std::int64_t chunk) {
    const std::int64_t first = chunk * kColumns, n = std::min(kColumns, length - first);
    if (dweight) sum_rows(dweight + first, partial + first, n, parts, 2 * length);
    if (dbias) sum_rows(dbias + first, partial + length + first, n, parts, 2 * length);
  });
}

}  // namespace

bool layer_norm_reads_ranges(const Shape& x, const Params*) { return x.size() > 0 && x[0] <= kChunkElements; }

void layer_norm(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_float("layer_norm", args.out.dtype, [&]<class T>() { launch_layer_norm<T>(args, launch); });
}

void layer_norm_back(const KernelArgs& args, Launch& launch) {
  if (args.in[1].shape[0] == 0) return;
  visit_float("layer_norm_back", args.in[1].dtype, [&]<class T>() { launch_layer_norm_back<T>(args, launch); });
}

}  // namespace owl::cpu
