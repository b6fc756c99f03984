// Softmax, its logarithm and their gradients: rows if the distributions are contiguous, otherwise blocks of columns.
#include <algorithm>

#include "backend/cpu/nn.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunkElements = 1 << 15;  // some tens of microseconds

// rows(first element, number of rows) or columns(first element, number of adjacent columns), in chunks.
template <class Rows, class Columns>
void launch_layout(const SoftmaxLayout& l, const KernelArgs& args, Launch& launch, Rows rows, Columns columns) {
  if (l.inner == 1) {
    const auto step = std::clamp<std::int64_t>(kChunkElements / l.length, 1, l.outer);
    launch.stage((l.outer + step - 1) / step, [=, finished = args.finished](std::int64_t chunk) {
      const auto begin = chunk * step * l.length, n = std::min(step, l.outer - chunk * step);
      rows(begin, n);
      if (finished) finished({begin, n * l.length});
    });
    return;
  }
  const auto blocks = (l.inner + kSoftmaxColumns - 1) / kSoftmaxColumns, all = blocks * l.outer;
  const auto step = std::clamp<std::int64_t>(kChunkElements / (l.length * kSoftmaxColumns), 1, all);
  launch.stage((all + step - 1) / step, [=, finished = args.finished](std::int64_t chunk) {
    for (auto i = chunk * step; i < std::min(all, (chunk + 1) * step); ++i) {
      const auto first = i % blocks * kSoftmaxColumns, begin = i / blocks * l.inner * l.length + first;
      const auto n = std::min(kSoftmaxColumns, l.inner - first);
      columns(begin, n);
      if (finished) finished({begin, n, l.inner, l.length});
    }
  });
}

template <class T> void launch_softmax(const KernelArgs& args, bool logarithm, Launch& launch) {
  const SoftmaxLayout l(args.out.shape, args.params);
  const auto& k = nn_table().kernels<T>();
  const T* const x = args.in[0].as<const T>();
  T* const y = args.out.as<T>();
  launch_layout(
      l, args, launch,
      [=, kernel = k.softmax, read = args.read](auto at, auto n) {
        kernel(y + at, read ? static_cast<const T*>(read({at, n * l.length})) : x + at, n, l.length, logarithm);
      },
      [=, kernel = k.softmax_columns](auto at, auto n) { kernel(y + at, x + at, n, l.length, l.inner, logarithm); });
}

template <class T> void launch_softmax_back(const KernelArgs& args, Launch& launch) {
  const SoftmaxLayout l(args.out.shape, args.params);
  const auto& k = nn_table().kernels<T>();
  const T *const err = args.in[0].as<const T>(), *const y = args.in[1].as<const T>();
  T* const dx = args.out.as<T>();
  launch_layout(
      l, args, launch, [=, kernel = k.softmax_back](auto at, auto n) { kernel(dx + at, err + at, y + at, n, l.length); },
      [=, kernel = k.softmax_back_columns](auto at, auto n) {
        kernel(dx + at, err + at, y + at, n, l.length, l.inner);
      });
}

template <class T> void launch_log_softmax_back(const KernelArgs& args, Launch& launch) {
  const SoftmaxLayout l(args.out.shape, args.params);
  const auto& k = nn_table().kernels<T>();
  const T *const err = args.in[0].as<const T>(), *const x = args.in[1].as<const T>();
  T* const dx = args.out.as<T>();
  launch_layout(
      l, args, launch,
      [=, kernel = k.log_softmax_back, read = args.read](auto at, auto n) {
        kernel(dx + at, read ? static_cast<const T*>(read({at, n * l.length})) : err + at, x + at, n, l.length);
      },
      [=, kernel = k.log_softmax_back_columns](auto at, auto n) {
        kernel(dx + at, err + at, x + at, n, l.length, l.inner);
      });
}

void softmax_of(const KernelArgs& args, bool logarithm, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_float("softmax", args.out.dtype, [&]<class T>() { launch_softmax<T>(args, logarithm, launch); });
}

}  // namespace

// Whether the distributions are contiguous, and short enough to stay in the cache between reading and use.
bool softmax_reads_ranges(const Shape& x, const Params* params) {
  if (x.size() == 0) return false;
  const SoftmaxLayout l(x, params);
  return l.inner == 1 && l.length <= kChunkElements;
}

StripTraits softmax_strips(std::span<const ArrayRef>, const ArrayRef& out, const Params* params) {
  const SoftmaxLayout l(out.shape, params);
  return {l.inner == 1 && l.outer > 1 ? 1 : 0, 0b111};  // not over the images
}

void softmax(const KernelArgs& args, Launch& launch) { softmax_of(args, false, launch); }
void log_softmax(const KernelArgs& args, Launch& launch) { softmax_of(args, true, launch); }

void softmax_back(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_float("softmax_back", args.out.dtype, [&]<class T>() { launch_softmax_back<T>(args, launch); });
}

void log_softmax_back(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_float("log_softmax_back", args.out.dtype, [&]<class T>() { launch_log_softmax_back<T>(args, launch); });
}

}  // namespace owl::cpu
