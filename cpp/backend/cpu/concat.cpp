#include "backend/cpu/concat.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "backend/cpu/strided_copy.h"
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

void copy(const KernelArgs& args, Launch& launch) {
  const ArrayRef& in = args.in[0];
  auto plan = std::make_shared<StridedCopy>(in.shape, in.strides, itemsize(in.dtype));
  launch.stage(plan->chunks(), [plan, to = args.out.data, from = in.data](std::int64_t chunk) {
    plan->run(chunk, to, from);
  });
}

}  // namespace owl::cpu
