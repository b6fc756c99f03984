#include "backend/cpu/create.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/isa/kernels.h"
#include "base/visit_dtype.h"
#include "ops/create.h"
#include "ops/elementwise.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunk = 1 << 16;    // elements; a multiple of Philox's 4, so that whole arrays begin blocks
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

using elementwise_ops::convert;

template <class T> T element(const Number& v) {
  if constexpr (std::is_same_v<T, std::int64_t>)
    if (v.kind != 3) return v.integer;
  return convert<double, T>(v.value);
}

// Integers and bools are converted from float32 numbers.
void random(const KernelArgs& args, Launch& launch, const RandomKernel& kernel) {
  const auto& p = *static_cast<const CreateParams*>(args.params);
  const RandomSpec spec{p.seed, p.call, p.a.value, p.b.value};
  visit_dtype<DType::kBool, DType::kInt32, DType::kFloat32, DType::kFloat64>("a random array", args.out.dtype, [&]<class T>() {
    stage<T>(args, launch, [=, first = p.first](T* dst, std::int64_t begin, std::int64_t n) {
      if constexpr (std::is_same_v<T, float>) {
        kernel.float32(dst, spec, first + begin, n);
      } else if constexpr (std::is_same_v<T, double>) {
        kernel.float64(dst, spec, first + begin, n);
      } else {
        float buffer[kBuffer];
        for (std::int64_t at = 0; at < n; at += kBuffer) {
          const std::int64_t m = std::min(kBuffer, n - at);
          kernel.float32(buffer, spec, first + begin + at, m);
          for (std::int64_t i = 0; i < m; ++i) dst[at + i] = convert<double, T>(std::floor(double{buffer[i]}));
        }
      }
    });
  });
}

}  // namespace

void full(const KernelArgs& args, Launch& launch) {
  const Number value = static_cast<const CreateParams*>(args.params)->a;
  visit_any_dtype("full", args.out.dtype, [&]<class T>() {
    stage<T>(args, launch, [v = element<T>(value)](T* dst, std::int64_t, std::int64_t n) {
      best_tile_table().fill(dst, &v, sizeof(T), n);
    });
  });
}

void arange(const KernelArgs& args, Launch& launch) {
  const auto& p = *static_cast<const CreateParams*>(args.params);
  visit_any_dtype("arange", args.out.dtype, [&]<class T>() {
    const auto fill = [start = p.a, step = p.b](T* dst, std::int64_t begin, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        if constexpr (std::is_same_v<T, std::int64_t>)
          if (start.kind == 2 && step.kind == 2) {
            dst[i] = start.integer + (begin + i) * step.integer;
            continue;
          }
        dst[i] = convert<double, T>(start.value + static_cast<double>(begin + i) * step.value);
      }
    };
    stage<T>(args, launch, fill);
  });
}

void rand(const KernelArgs& args, Launch& launch) { random(args, launch, best_random_table().uniform); }
void randn(const KernelArgs& args, Launch& launch) { random(args, launch, best_random_table().normal); }
void randb(const KernelArgs& args, Launch& launch) { random(args, launch, best_random_table().bernoulli); }

}  // namespace owl::cpu
