// Local response normalisation and its gradient: blocks of adjacent pixels, each with all its channels.
#include <algorithm>

#include "backend/cpu/nn.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "base/visit_dtype.h"
#include "ops/nn.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunkElements = 1 << 15;  // some tens of microseconds; the gradient's scratch has twice as many

// body(first element, number of adjacent pixels)
template <class Body> void for_each_block(const KernelArgs& args, Launch& launch, Body body) {
  const Shape& x = args.out.shape;
  const auto plane = x[0] * x[1], image = plane * x[2], images = x[3];
  const auto places = std::clamp<std::int64_t>(kChunkElements / x[2], 16, std::max<std::int64_t>(16, plane));
  const auto blocks = (plane + places - 1) / places;
  const auto step = std::clamp<std::int64_t>(kChunkElements / image, 1, blocks * images);
  launch.stage((blocks * images + step - 1) / step, [=, finished = args.finished](std::int64_t chunk) {
    for (auto i = chunk * step; i < std::min(blocks * images, (chunk + 1) * step); ++i) {
      const auto first = i % blocks * places, begin = i / blocks * image + first, n = std::min(places, plane - first);
      body(begin, n);
      if (finished) finished({begin, n, plane, image / plane});
    }
  });
}

template <class T> void launch_lrn(const KernelArgs& args, Launch& launch) {
  const auto& l = static_cast<const LrnParams&>(*args.params).lrner;
  const Shape& shape = args.out.shape;
  const auto alpha = static_cast<T>(l.alpha / static_cast<double>(l.local_size)), beta = static_cast<T>(l.beta);
  for_each_block(args, launch,
                 [=, half = l.local_size / 2, plane = shape[0] * shape[1], channels = shape[2],
                  x = args.in[0].as<const T>(), y = args.out.as<T>()](auto at, auto places) {
                   nn_table().kernels<T>().lrn(y + at, x + at, places, channels, plane, half, alpha, beta);
                 });
}

template <class T> void launch_lrn_back(const KernelArgs& args, Launch& launch) {
  const auto& l = static_cast<const LrnParams&>(*args.params).lrner;
  const Shape& shape = args.out.shape;
  const auto alpha = static_cast<T>(l.alpha / static_cast<double>(l.local_size)), beta = static_cast<T>(l.beta);
  for_each_block(args, launch,
                 [=, half = l.local_size / 2, plane = shape[0] * shape[1], channels = shape[2],
                  err = args.in[0].as<const T>(), x = args.in[1].as<const T>(), y = args.in[2].as<const T>(),
                  dx = args.out.as<T>()](auto at, auto places) {
                   const auto bytes = static_cast<std::size_t>(2 * places * channels) * sizeof(T);
                   ThreadScratch scratch(bytes);
                   nn_table().kernels<T>().lrn_back(dx + at, err + at, x + at, y + at, places, channels, plane, half,
                                                    alpha, beta, reinterpret_cast<T*>(scratch.take(bytes)));
                 });
}

}  // namespace

void lrn(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_float("lrn", args.out.dtype, [&]<class T>() { launch_lrn<T>(args, launch); });
}

void lrn_back(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_float("lrn_back", args.out.dtype, [&]<class T>() { launch_lrn_back<T>(args, launch); });
}

}  // namespace owl::cpu
