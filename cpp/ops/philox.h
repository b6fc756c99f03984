// Random numbers from counters: Philox 4x32-10 (Salmon et al., SC 2011), and what becomes of its words. The counter is
// (block, call), the key the seed. Written like ops/math.h, but without fused multiply-adds, so that every device and
// instruction set draws the same numbers; only normal numbers of float64 depend on a library's functions.
//
// float32: block b gives elements 4 b .. 4 b + 3, a word each; normal numbers come two from each pair of words.
// float64: a number takes two words, the high one from that same block, the low one from a second set of blocks, told
// apart by the counter's highest bit.
#pragma once

#include <cstdint>

#include "ops/math.h"

namespace owl::philox {
namespace {

inline constexpr int kRounds = 10;
inline constexpr std::uint32_t kMultiply0 = 0xD2511F53u, kMultiply1 = 0xCD9E8D57u;
inline constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
inline constexpr std::uint64_t kLowWords = std::uint64_t{1} << 63;  // the blocks of low words

struct Words {
  std::uint32_t w[4];
};
OWL_MATH Words philox4x32_10(std::uint64_t block, std::uint64_t call, std::uint64_t seed) {
  std::uint32_t c0 = static_cast<std::uint32_t>(block), c1 = static_cast<std::uint32_t>(block >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(call), c3 = static_cast<std::uint32_t>(call >> 32);
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{kMultiply0} * c0, p1 = std::uint64_t{kMultiply1} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<std::uint32_t>(p0);
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

// In [0, 1). 24 bits: every value is a float32, none is 1.
OWL_MATH float unit(std::uint32_t w) {
  return static_cast<float>(static_cast<std::int32_t>(w >> 8)) * 5.9604644775390625e-08f;
}
OWL_MATH double unit64(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t m = (std::uint64_t{high} << 32 | low) >> 11;
  return static_cast<double>(m) * 1.1102230246251565e-16;
}

// u, from [0, 1), to [low, high). low + u * (high - low) may round up to high: the result stays at `last` then, the
// number before it.
template <class T> OWL_MATH T between(T low, T high, T last, T u) {
  const T v = low + u * (high - low);
  return v >= high ? last : v;
}

// Two standard normal numbers, by Box and Muller's method.
struct Pair {
  float a, b;
};
OWL_MATH Pair normal_pair(std::uint32_t w0, std::uint32_t w1) {
  // (0, 1], with 31 bits: the tails reach 6.5 standard deviations.
  const float u = static_cast<float>(static_cast<std::int32_t>(w0 >> 1)) * 4.6566128730773926e-10f +
                  2.3283064365386963e-10f;
  const float radius = math::sqrt(-2.0f * math::ln<false>(u));
  // The angle: two bits choose the quadrant, the others a place in -pi/4 .. pi/4.
  const float t = (static_cast<float>(static_cast<std::int32_t>(w1 & 0x3fffffffu)) * 9.3132257461547852e-10f - 0.5f) *
                  1.57079633f;
  const auto quadrant = static_cast<std::int32_t>(w1 >> 30);
  const float c = math::sine_at<false>({quadrant + 1, t}), s = math::sine_at<false>({quadrant, t});
  return {radius * c, radius * s};
}
// One of the two, of two numbers in [0, 1).
OWL_MATH double normal64(double u0, double u1, bool second) {
  const double radius = math::sqrt(-2.0 * math::ln<false>(1.0 - u0)), angle = 6.2831853071795865 * u1;
  return radius * (second ? math::sin(angle) : math::cos(angle));
}

}  // namespace
}  // namespace owl::philox
