#include "backend/cpu/create.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/isa/kernels.h"
#include "base/visit_dtype.h"
#include "ops/create.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunk = 1 << 16;    // elements; a multiple of Philox's 4
constexpr std::int64_t kBuffer = 1024;

// Calls fill(T* dst, begin, n) over the chunks of the result.
template <class T, class Fill> void stage(const KernelArgs& args, Launch& launch, Fill fill) {
  T* out = args.out.as<T>();
  const std::int64_t size = args.out.shape.size();
  launch.stage((size + kChunk - 1) / kChunk, [=](std::int64_t chunk) {
    const std::int64_t begin = chunk * kChunk;
    fill(out + begin, begin, std::min(kChunk, size - begin));
  });
}

template <class T> T convert(double v, DType dtype) {
  if (dtype == DType::kBool) return static_cast<T>(v != 0);
  if (dtype == DType::kInt32)
    return v != v ? T(0) : static_cast<T>(std::clamp(v, -2147483648.0, 2147483647.0));
  return static_cast<T>(v);
}

// Integers and bools are converted from float32 numbers.
void random(const KernelArgs& args, Launch& launch, const RandomKernel& kernel) {
  const auto& p = *static_cast<const CreateParams*>(args.params);
  const RandomSpec spec{p.seed, p.call, p.a, p.b};
  visit_any_dtype("a random array", args.out.dtype, [&]<class T>() {
    stage<T>(args, launch, [=, dtype = args.out.dtype](T* dst, std::int64_t begin, std::int64_t n) {
      if constexpr (std::is_same_v<T, float>) {
        kernel.float32(dst, spec, begin, n);
      } else if constexpr (std::is_same_v<T, double>) {
        kernel.float64(dst, spec, begin, n);
      } else {
        float buffer[kBuffer];
        for (std::int64_t at = 0; at < n; at += kBuffer) {
          const std::int64_t m = std::min(kBuffer, n - at);
          kernel.float32(buffer, spec, begin + at, m);
          for (std::int64_t i = 0; i < m; ++i) dst[at + i] = convert<T>(std::floor(double{buffer[i]}), dtype);
        }
      }
    });
  });
}

}  // namespace

void full(const KernelArgs& args, Launch& launch) {
  const double value = static_cast<const CreateParams*>(args.params)->a;
  visit_any_dtype("full", args.out.dtype, [&]<class T>() {
    stage<T>(args, launch, [v = convert<T>(value, args.out.dtype)](T* dst, std::int64_t, std::int64_t n) {
      best_tile_table().fill(dst, &v, sizeof(T), n);
    });
  });
}

void arange(const KernelArgs& args, Launch& launch) {
  const auto& p = *static_cast<const CreateParams*>(args.params);
  visit_any_dtype("arange", args.out.dtype, [&]<class T>() {
    const auto fill = [start = p.a, step = p.b, dtype = args.out.dtype](T* dst, std::int64_t begin, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i)
        dst[i] = convert<T>(start + static_cast<double>(begin + i) * step, dtype);
    };
    stage<T>(args, launch, fill);
  });
}

void rand(const KernelArgs& args, Launch& launch) { random(args, launch, best_random_table().uniform); }
void randn(const KernelArgs& args, Launch& launch) { random(args, launch, best_random_table().normal); }
void randb(const KernelArgs& args, Launch& launch) { random(args, launch, best_random_table().bernoulli); }

}  // namespace owl::cpu
