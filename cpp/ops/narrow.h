// The types in which nothing is computed: uint8, float16, bfloat16. Programs convert them where they read and write them,
// by integer steps that a compiler can vectorise, whose bits are the same on every instruction set and on GPUs.
#pragma once

#include <cstdint>

#include "base/visit_dtype.h"
#include "ops/math.h"

namespace owl::narrow {
namespace {

OWL_MATH std::uint32_t bits(float x) { return static_cast<std::uint32_t>(math::bits(x)); }
OWL_MATH float from_bits(std::uint32_t b) { return math::from_bits(static_cast<std::int32_t>(b)); }

OWL_MATH float widen(Float16 x) {
  constexpr std::uint32_t kRebias = 112u << 23;  // from an exponent around 15 to one around 127
  const std::uint32_t sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  const std::uint32_t normal = (magnitude << 13) + kRebias;
  const std::uint32_t special = (normal + kRebias) | (magnitude > 0x7c00u ? 0x400000u : 0u);  // a NaN becomes quiet
  const std::uint32_t small = bits(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f);
  return from_bits(sign | (magnitude < 0x400u ? small : magnitude < 0x7c00u ? normal : special));
}
OWL_MATH float widen(BFloat16 x) { return from_bits(static_cast<std::uint32_t>(x.bits) << 16); }

// To the nearest, of two equally near ones to the even.
OWL_MATH Float16 round(float x, Float16) {
  const std::uint32_t sign = bits(x) & 0x80000000u, a = bits(x) ^ sign;
  const std::uint32_t normal = (a - (112u << 23) + 0xfffu + ((a >> 13) & 1u)) >> 13;
  // 0.5 has the last place of float16's denormal numbers, so that the addition rounds.
  const std::uint32_t small = bits(from_bits(a) + 0.5f) - 0x3f000000u;
  const std::uint32_t nan = 0x7e00u | ((a >> 13) & 0x3ffu);
  const std::uint32_t h = a > 0x7f800000u ? nan : a >= 0x47800000u ? 0x7c00u : a < 0x38800000u ? small : normal;
  return Float16{static_cast<std::uint16_t>(h | sign >> 16)};
}
OWL_MATH BFloat16 round(float x, BFloat16) {
  const std::uint32_t b = bits(x), nearest = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16, nan = b >> 16 | 0x40u;
  return BFloat16{static_cast<std::uint16_t>((b & 0x7fffffffu) > 0x7f800000u ? nan : nearest)};
}

// In float32, with the last bit set where that is not exact: rounded again, to fewer bits, it gives what x gives.
OWL_MATH float round_to_odd(double x) {
  const float near = static_cast<float>(x);
  const double back = static_cast<double>(near);
  const std::uint32_t toward_zero = bits(near) - (math::abs(back) > math::abs(x) ? 1u : 0u);
  return from_bits(back == x || x != x ? bits(near) : toward_zero | 1u);
}

}  // namespace
}  // namespace owl::narrow
