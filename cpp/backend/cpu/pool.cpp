// Pooling and its gradient: each plane separately, several planes per chunk.
#include <algorithm>

#include "backend/cpu/nn.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"

namespace owl::cpu {

namespace {

// Elements of a chunk: some ten microseconds, within the L2 cache.
constexpr std::int64_t kChunkElements = 1 << 15;

// Calls plane(i) for every plane of x, in chunks; each call computes a plane of the result.
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
  const Shape& x_shape = args.out.shape;
  const auto g = pool_geometry(p.pooler, x_shape);
  const auto plane = g.height * g.width, out_plane = g.out_height * g.out_width;
  const auto& kernels = nn_table().kernels<T>();
  const T* const err = args.in[0].as<const T>();
  T* const dx = args.out.as<T>();
  if (p.pooler.op == conv::PoolOp::kMax)
    for_each_plane(x_shape, args, launch, [=, back = kernels.pool_max_back, x = args.in[1].as<const T>()](std::int64_t i) {
      back(dx + i * plane, err + i * out_plane, x + i * plane, g);
    });
  else
    for_each_plane(x_shape, args, launch, [=, kernel = kernels.pool_average_back](std::int64_t i) {
      const auto bytes = static_cast<std::size_t>(average_rows_kept(g) * g.width) * sizeof(double);
      ThreadScratch scratch(bytes);
      kernel(dx + i * plane, err + i * out_plane, g, reinterpret_cast<double*>(scratch.take(bytes)));
    });
}

// ---- channels last

constexpr std::int64_t kWidestWindow = 512;  // wider ones are folded in another order (isa/pool_kernels.cpp)

// An array of images that are processed with channels last: in place, or converted in `space`.
struct Images {
  std::uint32_t* data;
  bool channels_last;
  std::int64_t channels, plane;

  explicit Images(const ArrayRef& a)
      : data(a.as<std::uint32_t>()), channels_last(a.channels_last), channels(a.shape[2]),
        plane(a.shape[0] * a.shape[1]) {}
  std::size_t space() const {
    return channels_last ? 0 : ThreadScratch::padded(static_cast<std::size_t>(channels * plane) * sizeof(float));
  }
  std::uint32_t* image(std::int64_t i) const { return data + i * channels * plane; }
  float* at(std::int64_t i, std::byte* space) const {
    return channels_last ? reinterpret_cast<float*>(image(i)) : reinterpret_cast<float*>(space);
  }
  const float* read(std::int64_t i, std::byte* space) const {
    if (!channels_last)
      best_tile_table().transpose4(reinterpret_cast<std::uint32_t*>(space), channels, image(i), plane, channels, plane);
    return at(i, space);
  }
  void written(std::int64_t i, std::byte* space) const {
    if (!channels_last)
      best_tile_table().transpose4(image(i), plane, reinterpret_cast<std::uint32_t*>(space), channels, plane, channels);
  }
};

// Any of the arrays may be channels last.
void launch_channels_last(const KernelArgs& args, bool back, Launch& launch) {
  const auto& p = static_cast<const PoolParams&>(*args.params);
  const bool maximum = p.pooler.op == conv::PoolOp::kMax;
  const Images first(args.in[0]), second(args.in.back()), out(args.out);  // x; or the error and, for a maximum, x
  const auto g = pool_geometry(p.pooler, back ? args.out.shape : args.in[0].shape);
  const auto images = args.out.shape[3], channels = out.channels, size = channels * out.plane;
  const auto step = std::clamp<std::int64_t>(kChunkElements / (channels * g.height * g.width), 1, images);
  launch.stage((images + step - 1) / step, [=, finished = args.finished](std::int64_t chunk) {
    const auto& k = nn_table().channels_last;
    const auto rows = back && !maximum ? average_rows_kept(g) : 1;
    const auto row_bytes = ThreadScratch::padded(static_cast<std::size_t>(rows * g.width * channels) * sizeof(double));
    ThreadScratch scratch(row_bytes + first.space() + second.space() + out.space());
    auto* const row = reinterpret_cast<double*>(scratch.take(row_bytes));
    auto *const a = scratch.take(first.space()), *const b = scratch.take(second.space()), *const y = scratch.take(out.space());
    const auto begin = chunk * step, end = std::min(images, begin + step);
    for (auto i = begin; i < end; ++i) {
      const float* const in = first.read(i, a);
      if (!back) (maximum ? k.pool_max : k.pool_average)(out.at(i, y), in, g, channels, row);
      else if (maximum) k.pool_max_back(out.at(i, y), in, second.read(i, b), g, channels);
      else k.pool_average_back(out.at(i, y), in, g, channels, row);
      out.written(i, y);
    }
    if (finished) finished({begin * size, (end - begin) * size});
  });
}

bool any_channels_last(const KernelArgs& args) {
  return args.out.channels_last || std::ranges::any_of(args.in, [](const ArrayRef& a) { return a.channels_last; });
}

}  // namespace

std::int64_t average_rows_kept(const PoolGeometry& g) {
  return std::clamp<std::int64_t>((g.window_y - 1) / g.stride_y + 1, 1, std::max<std::int64_t>(1, g.out_height));
}

unsigned pool_channels_last(std::span<const Shape>, const Shape&, const Params* params) {
  return static_cast<const PoolParams&>(*params).pooler.w <= kWidestWindow ? 0b11 : 0;
}
unsigned pool_back_channels_last(std::span<const Shape>, const Shape&, const Params* params) {
  return static_cast<const PoolParams&>(*params).pooler.w <= kWidestWindow ? 0b111 : 0;
}

StripTraits pool_strips(std::span<const ArrayRef>, const ArrayRef&, const Params*) { return {1, 0b11}; }
StripTraits pool_back_strips(std::span<const ArrayRef>, const ArrayRef&, const Params*) { return {1, 0b111}; }

void pool(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  if (any_channels_last(args)) return launch_channels_last(args, false, launch);
  visit_float("pool", args.out.dtype, [&]<class T>() { launch_pool<T>(args, launch); });
}

void pool_back(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  if (any_channels_last(args)) return launch_channels_last(args, true, launch);
  visit_float("pool_back", args.out.dtype, [&]<class T>() { launch_pool_back<T>(args, launch); });
}

}  // namespace owl::cpu
