#include "backend/mpi/combine.h"

#include "base/visit_dtype.h"
#include "ops/elementwise.h"

namespace owl::mpi {

namespace {

// A narrow type is computed in a wider one, and each result rounded, as everywhere.
template <class Op, class T> T of(T a, T b) { return Op::template eval<T>(a, b); }
template <class Op> Float16 of(Float16 a, Float16 b) {
  return narrow::round(Op::template eval<float>(narrow::widen(a), narrow::widen(b)), Float16{});
}
template <class Op> BFloat16 of(BFloat16 a, BFloat16 b) {
  return narrow::round(Op::template eval<float>(narrow::widen(a), narrow::widen(b)), BFloat16{});
}
template <class Op> UInt8 of(UInt8 a, UInt8 b) {
  return static_cast<UInt8>(Op::template eval<std::int32_t>(static_cast<std::int32_t>(a), static_cast<std::int32_t>(b)));
}

constexpr std::int64_t kBlock = 64;  // a constant count, so that the compiler makes it vectors

template <class Op, class T> void loop(void* to, const void* a, const void* b, std::int64_t n) {
  auto* const out = static_cast<T*>(to);
  const auto *const x = static_cast<const T*>(a), *const y = static_cast<const T*>(b);
  std::int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    T block[kBlock];
    for (std::int64_t j = 0; j < kBlock; ++j) block[j] = of<Op>(x[i + j], y[i + j]);
    for (std::int64_t j = 0; j < kBlock; ++j) out[i + j] = block[j];
  }
  for (; i < n; ++i) out[i] = of<Op>(x[i], y[i]);
}

template <class T> void each(distributed::Combine how, void* to, const void* a, const void* b, std::int64_t n) {
  switch (how) {
    case distributed::Combine::kSum: return loop<elementwise_ops::Add, T>(to, a, b, n);
    case distributed::Combine::kMax: return loop<elementwise_ops::Maximum, T>(to, a, b, n);
    case distributed::Combine::kMin: return loop<elementwise_ops::Minimum, T>(to, a, b, n);
  }
}

}  // namespace

void combine(DType dtype, distributed::Combine how, void* to, const void* a, const void* b, std::int64_t n) {
  visit_any_dtype("distributed.all_reduce", dtype, [&]<class T>() { each<T>(how, to, a, b, n); });
}

}  // namespace owl::mpi
