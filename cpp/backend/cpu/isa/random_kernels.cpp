// Random numbers: those of ops/philox.h, with many blocks of the generator computed in parallel.
#include "backend/cpu/isa/kernels.h"
#include "ops/philox.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace owl::cpu::OWL_ISA {
namespace {

using philox::kLowWords, philox::Pair, philox::unit, philox::unit64;

constexpr int kLanes = 16;  // blocks computed in parallel

struct Words {
  alignas(64) std::uint32_t w[4][kLanes];
};

// A vector of 32-bit words, each in a 64-bit lane, which holds a full product of two.
#if defined(__AVX512F__)
using Lanes [[gnu::vector_size(64)]] = std::uint64_t;
[[gnu::always_inline]] inline Lanes multiply(Lanes a, Lanes b) {
  return (Lanes)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);  // unmasked, GCC 12 warns in its own header
}
#elif defined(__AVX2__)
using Lanes [[gnu::vector_size(32)]] = std::uint64_t;
[[gnu::always_inline]] inline Lanes multiply(Lanes a, Lanes b) {
  return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#elif defined(__SSE2__)
using Lanes [[gnu::vector_size(16)]] = std::uint64_t;
[[gnu::always_inline]] inline Lanes multiply(Lanes a, Lanes b) {
  return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
}
#else
using Lanes [[gnu::vector_size(16)]] = std::uint64_t;
[[gnu::always_inline]] inline Lanes multiply(Lanes a, Lanes b) { return a * b; }
#endif

[[gnu::always_inline]] inline void make_words(Words& x, std::uint64_t seed, std::uint64_t call, std::uint64_t block) {
  constexpr int kWidth = sizeof(Lanes) / 8;
  const Lanes low32 = Lanes{} + 0xffffffffu, m0 = Lanes{} + philox::kMultiply0,
              m1 = Lanes{} + philox::kMultiply1;
  for (int first = 0; first < kLanes; first += kWidth) {
    Lanes counter;
    for (int j = 0; j < kWidth; ++j) counter[j] = block + static_cast<std::uint64_t>(first + j);
    Lanes c0 = counter & low32, c1 = counter >> 32, c2 = Lanes{} + (call & 0xffffffffu), c3 = Lanes{} + (call >> 32);
    std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < philox::kRounds; ++round) {
      const Lanes p0 = multiply(m0, c0), p1 = multiply(m1, c2);
      c0 = (p1 >> 32) ^ c1 ^ std::uint64_t{key0};
      c1 = p1 & low32;
      c2 = (p0 >> 32) ^ c3 ^ std::uint64_t{key1};
      c3 = p0 & low32;
      key0 += philox::kWeyl0;
      key1 += philox::kWeyl1;
    }
    for (int j = 0; j < kWidth; ++j) {
      x.w[0][first + j] = static_cast<std::uint32_t>(c0[j]);
      x.w[1][first + j] = static_cast<std::uint32_t>(c1[j]);
      x.w[2][first + j] = static_cast<std::uint32_t>(c2[j]);
      x.w[3][first + j] = static_cast<std::uint32_t>(c3[j]);
    }
  }
}

// The same for every word of 16 blocks, then stored in the order of the elements.
template <class Make> [[gnu::always_inline]] inline void make_pairs(const Words& x, float* to, Make make) {
  alignas(64) float z[4][kLanes];
  for (int k = 0; k < 4; k += 2) {
#pragma GCC ivdep
    for (int j = 0; j < kLanes; ++j) {
      const Pair p = make(x.w[k][j], x.w[k + 1][j]);
      z[k][j] = p.a;
      z[k + 1][j] = p.b;
    }
  }
  for (int j = 0; j < kLanes; ++j)
    for (int k = 0; k < 4; ++k) to[4 * j + k] = z[k][j];
}

template <class Make>
[[gnu::always_inline]] inline void in_blocks(float* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n,
                                             Make make) {
  constexpr std::int64_t kStep = 4 * kLanes;
  std::uint64_t block = static_cast<std::uint64_t>(begin) / 4;
  for (std::int64_t at = -(begin % 4); at < n; at += kStep, block += kLanes) {
    Words x;
    make_words(x, spec.seed, spec.call, block);
    if (at >= 0 && n - at >= kStep) {
      make_pairs(x, dst + at, make);
    } else {
      alignas(64) float whole[kStep];
      make_pairs(x, whole, make);
      for (std::int64_t i = at < 0 ? -at : 0; i < kStep && at + i < n; ++i) dst[at + i] = whole[i];
    }
  }
}

void uniform(float* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n) {
  const float low = static_cast<float>(spec.a), high = static_cast<float>(spec.b);
  const float last = high > low ? __builtin_nextafterf(high, low) : high;
  const auto scale = [=](std::uint32_t w) __attribute__((always_inline)) {
    return philox::between(low, high, last, unit(w));
  };
  in_blocks(dst, spec, begin, n, [=](std::uint32_t w0, std::uint32_t w1) __attribute__((always_inline)) {
    return Pair{scale(w0), scale(w1)};
  });
}

void normal(float* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n) {
  const float mu = static_cast<float>(spec.a), sigma = static_cast<float>(spec.b);
  in_blocks(dst, spec, begin, n, [=](std::uint32_t w0, std::uint32_t w1) __attribute__((always_inline)) {
    const Pair z = philox::normal_pair(w0, w1);
    return Pair{mu + sigma * z.a, mu + sigma * z.b};
  });
}

void bernoulli(float* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n) {
  const float p = static_cast<float>(spec.a);
  in_blocks(dst, spec, begin, n, [=](std::uint32_t w0, std::uint32_t w1) __attribute__((always_inline)) {
    return Pair{unit(w0) < p ? 1.0f : 0.0f, unit(w1) < p ? 1.0f : 0.0f};
  });
}

template <class Make>
[[gnu::always_inline]] inline void in_blocks64(double* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n,
                                               Make make) {
  for (std::int64_t at = -(begin % 4); at < n; at += 4 * kLanes) {
    Words high, low;
    const std::uint64_t block = static_cast<std::uint64_t>(begin + at) / 4;
    make_words(high, spec.seed, spec.call, block);
    make_words(low, spec.seed, spec.call, block | kLowWords);
    for (std::int64_t i = at < 0 ? -at : 0; i < 4 * kLanes && at + i < n; ++i) {
      const std::int64_t j = i / 4;
      dst[at + i] = make(i % 2, [&](std::int64_t which) __attribute__((always_inline)) {
        const std::int64_t k = (i & 2) + which;  // of the pair
        return unit64(high.w[k][j], low.w[k][j]);
      });
    }
  }
}

void uniform64(double* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n) {
  const double last = spec.b > spec.a ? __builtin_nextafter(spec.b, spec.a) : spec.b;
  in_blocks64(dst, spec, begin, n, [&](std::int64_t which, auto number) __attribute__((always_inline)) {
    return philox::between(spec.a, spec.b, last, number(which));
  });
}

void normal64(double* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n) {
  in_blocks64(dst, spec, begin, n, [&](std::int64_t which, auto number) __attribute__((always_inline)) {
    return spec.a + spec.b * philox::normal64(number(0), number(1), which == 1);
  });
}

void bernoulli64(double* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n) {
  in_blocks64(dst, spec, begin, n, [&](std::int64_t which, auto number) __attribute__((always_inline)) {
    return number(which) < spec.a ? 1.0 : 0.0;
  });
}

}  // namespace

const RandomTable& random_table() {
  static constexpr RandomTable table{{uniform, uniform64}, {normal, normal64}, {bernoulli, bernoulli64}};
  return table;
}

}  // namespace owl::cpu::OWL_ISA
