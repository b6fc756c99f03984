#include "backend/cpu/concat.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "backend/cpu/strided_copy.h"
#include "base/visit_dtype.h"
#include "ops/add_views.h"
#include "ops/concat.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunkBytes = 256 * 1024;

// One operand's share: runs of `run` bytes, `step` bytes apart in the output.
struct Part {
  const char* from;
  char* to;
  std::int64_t run, step, bytes;
  std::int64_t first_chunk;
};

void copy_range(const Part& part, std::int64_t begin, std::int64_t end) {
  std::int64_t row = begin / part.run, at = begin % part.run;
  while (begin < end) {
    const std::int64_t n = std::min(part.run - at, end - begin);
    std::memcpy(part.to + row * part.step + at, part.from + begin, static_cast<std::size_t>(n));
    begin += n;
    at = 0;
    ++row;
  }
}

}  // namespace

void concat(const KernelArgs& args, Launch& launch) {
  const int axis = static_cast<const ConcatParams*>(args.params)->axis;
  std::int64_t inner = static_cast<std::int64_t>(itemsize(args.out.dtype));
  for (int i = 0; i < axis; ++i) inner *= args.out.shape[i];

  auto parts = std::make_shared<std::vector<Part>>();
  const std::int64_t step = inner * args.out.shape[axis];
  std::int64_t offset = 0, chunks = 0;
  for (const ArrayRef& in : args.in) {
    const std::int64_t run = inner * in.shape[axis], bytes = static_cast<std::int64_t>(in.nbytes());
    if (bytes == 0) continue;
    parts->push_back({in.as<char>(), args.out.as<char>() + offset, run, step, bytes, chunks});
    offset += run;
    chunks += (bytes + kChunkBytes - 1) / kChunkBytes;
  }
  launch.stage(chunks, [parts](std::int64_t chunk) {
    const auto after = std::upper_bound(parts->begin(), parts->end(), chunk,
                                        [](std::int64_t c, const Part& p) { return c < p.first_chunk; });
    const Part& part = *std::prev(after);
    const std::int64_t begin = (chunk - part.first_chunk) * kChunkBytes;
    copy_range(part, begin, std::min(part.bytes, begin + kChunkBytes));
  });
}

namespace {

constexpr std::int64_t kAddChunk = 1 << 16;  // elements

// Elements [begin, begin + n) of x, in dense order, to where they lie in the view.
template <class T>
void add_range(T* to, const T* x, const Axes& axes, const Strides& strides, std::int64_t begin, std::int64_t n) {
  std::int64_t at[kMaxAxes] = {}, offset = 0, rest = begin;
  for (int i = 0; i < axes.count; ++i) {
    at[i] = rest % axes.lengths[i];
    rest /= axes.lengths[i];
    offset += at[i] * strides[static_cast<std::size_t>(i)];
  }
  for (x += begin; n > 0;) {
    const std::int64_t run = std::min(n, axes.lengths[0] - at[0]), step = strides[0];
    T* row = to + offset;
    if (step == 1) for (std::int64_t i = 0; i < run; ++i) row[i] += x[i];
    else for (std::int64_t i = 0; i < run; ++i) row[i * step] += x[i];
    x += run;
    n -= run;
    offset -= at[0] * step;
    at[0] = 0;
    for (int i = 1; i < axes.count; ++i) {
      offset += strides[static_cast<std::size_t>(i)];
      if (++at[i] < axes.lengths[i]) break;
      offset -= at[i] * strides[static_cast<std::size_t>(i)];
      at[i] = 0;
    }
  }
}

}  // namespace

// The parts one after another, as they overlap.
void add_views(const KernelArgs& args, Launch& launch) {
  const auto& p = *static_cast<const AddViewsParams*>(args.params);
  const auto bytes = static_cast<std::int64_t>(args.out.nbytes());
  const char* from = p.onto ? args.in[0].as<char>() : nullptr;
  if (from != args.out.as<char>())
    launch.stage((bytes + kChunkBytes - 1) / kChunkBytes, [bytes, from, to = args.out.as<char>()](std::int64_t chunk) {
      const std::int64_t begin = chunk * kChunkBytes;
      const auto n = static_cast<std::size_t>(std::min(kChunkBytes, bytes - begin));
      if (from) std::memcpy(to + begin, from + begin, n);
      else std::memset(to + begin, 0, n);
    });
  for (std::size_t i = 0; i < p.places.size(); ++i) {
    const ArrayRef& x = args.in[i + p.onto];
    Strides dense = x.strides, view = p.places[i].second;
    Strides* both[] = {&view, &dense};
    const Axes axes = merge_axes(x.shape, both, 2);
    const std::int64_t n = x.shape.size();
    visit_float("add_views", x.dtype, [&]<class T>() {
      launch.stage((n + kAddChunk - 1) / kAddChunk,
                   [=, to = args.out.as<T>() + p.places[i].first, part = x.as<T>()](std::int64_t chunk) {
                     const std::int64_t begin = chunk * kAddChunk;
                     add_range(to, part, axes, view, begin, std::min(kAddChunk, n - begin));
                   });
    });
  }
}

void copy(const KernelArgs& args, Launch& launch) {
  const ArrayRef& in = args.in[0];
  auto plan = std::make_shared<StridedCopy>(in.shape, in.strides, itemsize(in.dtype));
  launch.stage(plan->chunks(), [plan, to = args.out.data, from = in.data](std::int64_t chunk) {
    plan->run(chunk, to, from);
  });
}

}  // namespace owl::cpu
