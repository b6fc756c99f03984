// Pooling and its gradient: every plane on its own, several planes a chunk.
#include <algorithm>

#include "backend/cpu/nn.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "ops/nn.h"

namespace owl::cpu {

namespace {

// A chunk's elements: some ten microseconds, within the second-level cache.
constexpr std::int64_t kChunkElements = 1 << 15;

// Calls plane(i) for every plane of x, in chunks; each makes a plane of the result.
template <class Plane> void for_each_plane(const Shape& x, const KernelArgs& args, Launch& launch, Plane plane) {
  const auto made = args.out.shape[0] * args.out.shape[1];
  const auto planes = x[2] * x[3], step = std::clamp<std::int64_t>(kChunkElements / (x[0] * x[1]), 1, planes);
  launch.stage((planes + step - 1) / step, [=, finished = args.finished](std::int64_t chunk) {
    const auto begin = chunk * step, end = std::min(planes, begin + step);
    for (auto i = begin; i < end; ++i) plane(i);
    if (finished) finished({begin * made, (end - begin) * made});
  });
}

template <class T> void launch_pool(const KernelArgs& args, Launch& launch) {
  const auto& p = static_cast<const PoolParams&>(*args.params);
  const auto& in = args.in[0];
  const auto g = pool_geometry(p.pooler, in.shape);
  const auto& kernels = nn_table().kernels<T>();
  const auto kernel = p.pooler.op == conv::PoolOp::kMax ? kernels.pool_max : kernels.pool_average;
  for_each_plane(in.shape, args, launch, [=, x = in.as<const T>(), y = args.out.as<T>()](std::int64_t i) {
    kernel(y + i * g.out_height * g.out_width, x + i * g.height * g.width, g);
  });
}

template <class T> void launch_pool_back(const KernelArgs& args, Launch& launch) {
  const auto& p = static_cast<const PoolParams&>(*args.params);
  const auto g = pool_geometry(p.pooler, p.x);
  const auto plane = g.height * g.width, out_plane = g.out_height * g.out_width;
  const auto& kernels = nn_table().kernels<T>();
  const T* const err = args.in[0].as<const T>();
  T* const dx = args.out.as<T>();
  if (p.pooler.op == conv::PoolOp::kMax)
    for_each_plane(p.x, args, launch, [=, kernel = kernels.pool_max_back, x = args.in[1].as<const T>()](std::int64_t i) {
      kernel(dx + i * plane, err + i * out_plane, x + i * plane, g);
    });
  else
    for_each_plane(p.x, args, launch, [=, kernel = kernels.pool_average_back](std::int64_t i) {
      kernel(dx + i * plane, err + i * out_plane, g);
    });
}

}  // namespace

void pool(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  if (args.out.dtype == DType::kFloat32) launch_pool<float>(args, launch);
  else launch_pool<double>(args, launch);
}

void pool_back(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  if (args.out.dtype == DType::kFloat32) launch_pool_back<float>(args, launch);
  else launch_pool_back<double>(args, launch);
}

}  // namespace owl::cpu
