// The functions of owl's elementwise operations, written so that a compiler can vectorise them: no branches, no calls,
// only IEEE additions, products, divisions, comparisons, integer steps, and fused multiply-adds where fma(a, b, c) says
// so; the compiler contracts nothing by itself. So a value's bits are the same in a vector and in a tail, on every
// instruction set that has this instruction (AVX2, AVX-512), and on a GPU. The baseline instruction set has none: there
// fma() is a product and a sum, and results may differ in their last bits.
//
// float32: own polynomials (minimax, fitted for these ranges), at most 2 ulp; pow, gelu and others, and the argument
// reduction of sin and cos, work in double inside. float64: exp, ln, tanh and what is made of them, also at most 2 ulp;
// the others are the C library's functions.
//
// Everything is in an anonymous namespace on purpose: this header is compiled for several instruction sets, and the
// linker must never merge those copies.
#pragma once

#include <cstdint>

namespace owl::math {
namespace {

#ifndef OWL_MATH  // defined in front of this text where it is compiled for a GPU (backend/cuda/device/prelude.h)
#define OWL_MATH [[gnu::always_inline, maybe_unused]] inline
#endif

OWL_MATH std::int32_t bits(float x) { return __builtin_bit_cast(std::int32_t, x); }
OWL_MATH std::uint64_t bits(double x) { return __builtin_bit_cast(std::uint64_t, x); }
// Wraps around: arguments outside a function's domain pass through the same arithmetic before they are replaced.
OWL_MATH std::int32_t minus(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) - static_cast<std::uint32_t>(b));
}
OWL_MATH std::int32_t plus(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}
OWL_MATH float from_bits(std::int32_t b) { return __builtin_bit_cast(float, b); }
OWL_MATH double from_bits(std::uint64_t b) { return __builtin_bit_cast(double, b); }

OWL_MATH float abs(float x) { return from_bits(bits(x) & 0x7fffffff); }
OWL_MATH double abs(double x) { return __builtin_fabs(x); }
// The smaller of a >= 0 and a constant, which it gives for a NaN: one instruction, which GCC does not make of floats.
OWL_MATH float at_most(float a, float limit) { return from_bits(bits(a) < bits(limit) ? bits(a) : bits(limit)); }
OWL_MATH float copysign(float magnitude, float sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & INT32_MIN));
}
OWL_MATH double copysign(double magnitude, double sign) {
  const std::uint64_t top = 0x8000000000000000;
  return from_bits((bits(magnitude) & ~top) | (bits(sign) & top));
}
OWL_MATH float sqrt(float x) { return __builtin_sqrtf(x); }
OWL_MATH double sqrt(double x) { return __builtin_sqrt(x); }

inline constexpr float kInf = __builtin_inff();
inline constexpr float kNaN = __builtin_nanf("");

// a * b + c, rounded once. Where that would be a call of the C library, rounded twice: every function keeps its bound
// either way. Never negate its result: GCC moves the sign into the operands, which changes the sign of a zero.
#if defined(OWL_ON_DEVICE) || (defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF))
#define OWL_FUSED
OWL_MATH float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
OWL_MATH double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
OWL_MATH float fma(float a, float b, float c) { return a * b + c; }
OWL_MATH double fma(double a, double b, double c) { return a * b + c; }
#endif

// As fma, but the product is exact everywhere: for what rounding has taken away.
OWL_MATH float exact_fma(float a, float b, float c) {
#ifdef OWL_FUSED
  return fma(a, b, c);
#else
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c));
#endif
}

// What random numbers are made of (ops/philox.h) has the same bits on the baseline too: it is also compiled with
// kFused = false, a product and a sum everywhere.
template <bool kFused, class T> OWL_MATH T step(T a, T b, T c) {
  if constexpr (kFused) return fma(a, b, c);
  else return a * b + c;
}

// c[0] + c[1] * x + c[2] * x^2 ..., two terms at a time: half as many operations in a row as by Horner's rule.
template <bool kFused, class T> OWL_MATH T poly_by_two(T, T, T c) { return c; }
template <bool kFused, class T> OWL_MATH T poly_by_two(T x, T, T c, T d) { return step<kFused>(x, d, c); }
template <bool kFused, class T, class... Rest> OWL_MATH T poly_by_two(T x, T x2, T c, T d, Rest... rest) {
  return step<kFused>(x2, poly_by_two<kFused>(x, x2, rest...), step<kFused>(x, d, c));
}
template <bool kFused = true, class T, class... C> OWL_MATH T poly(T x, C... c) {
  return poly_by_two<kFused>(x, x * x, c...);
}

// Adding and subtracting this rounds |x| < 2^22 to an integer n, which then stands in the sum's low bits. With the
// exponent's bias added, a shift of the sum makes 2^n.
inline constexpr float kRound = 12582912.0f;                // 1.5 * 2^23
inline constexpr double kRoundDouble = 6755399441055744.0;  // 1.5 * 2^52
inline constexpr float kRoundToPow2 = kRound + 127.0f;
inline constexpr double kRoundToPow2Double = kRoundDouble + 1023.0;
OWL_MATH float pow2_of_sum(float n_and_bias) { return from_bits(bits(n_and_bias) << 23); }
OWL_MATH double pow2_of_sum(double n_and_bias) { return from_bits(bits(n_and_bias) << 52); }

// 2^n as a * b, where 2^n alone may be out of range; the bias was added twice.
inline constexpr float kRoundToHalves = kRound + 254.0f;
inline constexpr double kRoundToHalvesDouble = kRoundDouble + 2046.0;
template <class T> struct Halves {
  T a, b;
};
OWL_MATH Halves<float> pow2_halves(float n_and_biases) {
  const std::int32_t sum = bits(n_and_biases), half = sum >> 1;
  return {from_bits(half << 23), from_bits(minus(sum, half) << 23)};
}
OWL_MATH Halves<double> pow2_halves(double n_and_biases) {
  const std::uint64_t sum = bits(n_and_biases), half = sum >> 1;
  return {from_bits(half << 52), from_bits((sum - half) << 52)};
}

// x = n * ln 2 + r + e with |r| <= 0.35 and a tiny e. `n * kLn2High` is exact. `sum` is n plus the constant `round`.
inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
template <class T> struct Reduced {
  T sum, r, e;
};
OWL_MATH Reduced<float> reduce_ln2(float x, float round) {
  const float sum = fma(x, 1.44269504f, round), n = sum - round;
  const float high = fma(n, -kLn2High, x), r = fma(n, -kLn2Low, high);
  return {sum, r, fma(n, -kLn2Low, high - r)};
}

// e^r - 1 for a reduced r, as exact as e^r needs it.
OWL_MATH float exp_poly_minus_1(float r) {
  const float q = poly(r, 4.9999991e-01f, 1.6666515e-01f, 4.1668344e-02f, 8.3690556e-03f, 1.3822134e-03f);
  return fma(r * r, q, r);
}
// (e^r - 1 - r) / r^2
OWL_MATH float expm1_poly(float r) {
  return poly(r, 5.e-01f, 1.6666664e-01f, 4.166647e-02f, 8.3339065e-03f, 1.3934472e-03f, 1.9561168e-04f);
}

// Arguments out of range pass through the same steps, and their results are replaced at the end: GCC makes more
// instructions of a clamp at the beginning. What would be denormal becomes 0, as everywhere on owl's threads.
OWL_MATH float exp(float x) {
  const Reduced<float> d = reduce_ln2(x, kRound);
  const float y = from_bits(plus(bits(1.0f + exp_poly_minus_1(d.r)), bits(d.sum) << 23));  // 2^128 is out of range
  const float below = x < -87.33654f ? 0.0f : y;
  return x <= 88.72283f ? below : x + kInf;  // infinity, NaN
}
// For -88 <= x <= 88; 2^-127 is 0 here.
OWL_MATH float exp_inside(float x) {
  const Reduced<float> d = reduce_ln2(x, kRoundToPow2);
  return (1.0f + exp_poly_minus_1(d.r)) * pow2_of_sum(d.sum);
}
// For x <= 0.
OWL_MATH float exp_not_positive(float x) {
  const float y = exp_inside(x);
  return x < -87.33654f ? 0.0f : y;
}

OWL_MATH float expm1(float x) {
  const Reduced<float> d = reduce_ln2(x, kRoundToPow2 - 1.0f);
  const float half = pow2_of_sum(d.sum);  // 2^(n - 1), because 2^128 is out of range
  const float rest = fma(d.r * d.r, expm1_poly(d.r), d.e);
  float y = 2.0f * fma(half, rest, fma(half, d.r, half - 0.5f));
  y = x < -30.0f ? -1.0f : y;
  y = x <= 88.8f ? y : x + kInf;
  return abs(x) < 1e-7f ? x : y;
}

// (1 - e^-2a) / (1 + e^-2a) with e^-2a = t + t * p: only sums near 1 round. Up to |n| = 29 one constant is ln 2 enough.
OWL_MATH float tanh(float x) {
  const float a = abs(x);
  const float sum = fma(a, -2.88539008f, kRoundToPow2), n = sum - kRoundToPow2;
  const float t = pow2_of_sum(sum), p = exp_poly_minus_1(fma(n, -0.693147181f, -(a + a)));
  const float y = fma(-t, p, 1.0f - t) / fma(t, p, 1.0f + t);
  return copysign(a > 10.0f ? 1.0f : y, x);
}

OWL_MATH float sigm(float x) {
  const float e = exp_not_positive(-abs(x)), sum = 1.0f + e;
  const float y = (x < 0.0f ? e : 1.0f) / sum, added = (sum - 1.0f) - e;  // by rounding the sum
  return fma(y, added, y);
}

// log(1 + f) = f - f^2/2 + f^3 * this, for 1 + f between sqrt(1/2) and sqrt(2)
template <bool kFused> OWL_MATH float ln_poly(float f) {
  return poly<kFused>(f, 3.3333313e-01f, -2.5000012e-01f, 2.0002075e-01f, -1.6667858e-01f, 1.4220186e-01f,
                      -1.2408077e-01f, 1.18865274e-01f, -1.16617456e-01f, 6.733614e-02f);
}
// x = 2^k * (1 + f); x positive and normal.
struct Logarithm {
  float k, f;
};
OWL_MATH Logarithm split_exponent(float x) {
  const std::int32_t root_half = 0x3f3504f3;
  const std::int32_t shifted = minus(bits(x), root_half);
  return {static_cast<float>(shifted >> 23), from_bits((shifted & 0x7fffff) + root_half) - 1.0f};
}

// k * kLn2High + log(1 + f) + low
template <bool kFused = true> OWL_MATH float ln_from(float k, float f, float low) {
  const float tail = step<kFused>(f * f * f, ln_poly<kFused>(f), low);
  return step<kFused>(k, kLn2High, f + step<kFused>(-0.5f * f, f, tail));
}

template <bool kFused = true> OWL_MATH float ln(float x) {
  const bool small = x < 1.17549435e-38f;  // denormal
  const float normal = small ? x * 8388608.0f : x, shift = small ? 23.0f : 0.0f;
  const Logarithm d = split_exponent(normal);
  const float k = d.k - shift;
  float result = ln_from<kFused>(k, d.f, k * kLn2Low);
  result = x < kInf ? result : x;  // infinity, NaN
  result = x < 0.0f ? kNaN : result;
  return x == 0.0f ? -kInf : result;
}

// ln(1 + x) from u = 1 + x rounded: the digits of x that rounding took come back as a correction.
OWL_MATH float log1p_from(float x, float u) {
  const Logarithm d = split_exponent(u);
  const bool near = d.k == 0.0f;
  const float f = near ? x : d.f;
  const float lost = x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
  const std::int32_t exponent = static_cast<std::int32_t>(d.k), k = exponent > 64 ? 64 : exponent;
  const float scale = from_bits(minus(0x3f800000, k << 23));  // 2^-k, but no denormal: there nothing was lost
  const float c = near ? 0.0f : lost * scale * (1.0f - f);
  return ln_from(d.k, f, fma(d.k, kLn2Low, c));
}
OWL_MATH float log1p(float x) {
  float result = log1p_from(x, 1.0f + x);
  result = x < kInf ? result : x;  // infinity, NaN
  result = x < -1.0f ? kNaN : result;
  result = x == -1.0f ? -kInf : result;
  return abs(x) < 1e-7f ? x : result;
}

OWL_MATH float softplus(float x) {
  const float e = exp_inside(-at_most(abs(x), 88.0f));
  return (x < 0.0f ? 0.0f : x) + log1p_from(e, 1.0f + e);
}

// x - n * pi/2, in double: exact enough for |x| < kSinRange.
inline constexpr float kSinRange = 1048576.0f;
struct WideAngle {
  std::int32_t quadrant;
  double r;
};
OWL_MATH WideAngle reduce_angle_wide(float x) {
  const double shifted = fma(static_cast<double>(x), 0.63661977236758134, kRoundDouble);
  const double n = shifted - kRoundDouble;
  const double high = 1.5707963267341256, low = 6.0771005065061922e-11;  // pi/2; n * high is exact
  const double r = fma(n, -low, fma(n, -high, static_cast<double>(x)));
  return {static_cast<std::int32_t>(bits(shifted)), r};
}
struct Angle {
  std::int32_t quadrant;
  float r;
};
OWL_MATH Angle reduce_angle(float x) {
  const WideAngle a = reduce_angle_wide(x);
  return {a.quadrant, static_cast<float>(a.r)};
}
template <bool kFused = true> OWL_MATH float sine_at(Angle a) {
  const float r = a.r, r2 = r * r;
  const float s_poly = poly<kFused>(r2, -1.6666667e-01f, 8.333372e-03f, -1.9849838e-04f, 2.7990916e-06f);
  const float c_poly = poly<kFused>(r2, 4.1666668e-02f, -1.3888972e-03f, 2.4818724e-05f, -2.8555513e-07f);
  const float s = step<kFused>(r * r2, s_poly, r), c = step<kFused>(r2, step<kFused>(r2, c_poly, -0.5f), 1.0f);
  const float value = (a.quadrant & 1) ? c : s;
  return from_bits(bits(value) ^ (static_cast<std::int32_t>(static_cast<std::uint32_t>(a.quadrant & 2) << 30)));
}
OWL_MATH float sin(float x) {
  const float y = sine_at(reduce_angle(x));
  return x == 0.0f ? x : y;  // keeps -0
}
OWL_MATH float cos(float x) {
  Angle a = reduce_angle(x);
  a.quadrant += 1;
  return sine_at(a);
}

// The quotient of sine and cosine, each in double.
OWL_MATH float tan(float x) {
  const WideAngle a = reduce_angle_wide(x);
  const double r = a.r, r2 = r * r;
  const double s = r * poly(r2, 1.0, -0.16666666663854385, 0.008333331874358352, -0.0001984008654531293,
                            2.724990115829391e-06);
  const double c = poly(r2, 1.0, -0.5, 0.04166666666432045, -0.0013888887671723142, 2.4800600218521467e-05,
                        -2.730093863463587e-07);
  const bool odd = a.quadrant & 1;
  const auto y = static_cast<float>((odd ? -c : s) / (odd ? s : c));
  return x == 0.0f ? x : y;  // keeps -0
}

inline constexpr double kPi = 3.14159265358979324, kHalfPi = 1.57079632679489662;

// The arcsine of 0 <= s <= 1/2, in double; s2 = s^2.
OWL_MATH double asin_poly(double s, double s2) {
  return s * poly(s2, 1.0, 0.16666666686085643, 0.07499992404401838, 0.04464766388813485, 0.030269138728589183,
                  0.023611817008891752, 0.010574415516912909, 0.030974540371355073);
}
// (A condition that is tested again at the end would make GCC compile everything in between twice.)
// Above 1/2 by the half angle: asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2)), acos(a) = 2 asin(sqrt((1 - a) / 2)).
OWL_MATH float asin(float x) {
  const double a = abs(static_cast<double>(x));
  const bool large = a > 0.5;
  const double s2 = large ? (1.0 - a) * 0.5 : a * a, base = large ? kHalfPi : 0.0, factor = large ? -2.0 : 1.0;
  return copysign(static_cast<float>(fma(factor, asin_poly(large ? sqrt(s2) : a, s2), base)), x);
}
OWL_MATH float acos(float x) {
  const double a = abs(static_cast<double>(x));
  const bool large = a > 0.5;
  const double s2 = large ? (1.0 - a) * 0.5 : a * a, base = large ? 0.0 : kHalfPi, factor = large ? 2.0 : -1.0;
  const double of_abs = fma(factor, asin_poly(large ? sqrt(s2) : a, s2), base);
  const auto y = static_cast<float>(x < 0.0f ? kPi - of_abs : of_abs);
  return x != x ? x : y;  // both factors of a product would be NaNs, with different signs
}

// The arctangent of 0 <= t <= 1, in double.
OWL_MATH double atan_unit(double t) {
  const double t2 = t * t;
  return t * poly(t2, 1.0, -0.3333333332694414, 0.19999998154086215, -0.14285624891483525, 0.11109392308322223,
                  -0.09073553118976409, 0.0758665283364667, -0.06246315194128317, 0.047294798621813336,
                  -0.02991311194551696, 0.014072923344697239, -0.0042216579909296476, 0.0005930437556365282);
}
// Of y / x where both are 0 or positive, 0 / 0 as 0 and inf / inf as 1.
OWL_MATH double atan_of_quotient(double y, double x) {
  const bool steep = y > x;
  double t = (steep ? x : y) / (steep ? y : x);
  t = y == x ? (y == 0.0 ? 0.0 : 1.0) : t;
  const double angle = atan_unit(t);
  return steep ? kHalfPi - angle : angle;
}
OWL_MATH float atan(float x) {
  return copysign(static_cast<float>(atan_of_quotient(abs(static_cast<double>(x)), 1.0)), x);
}
OWL_MATH float atan2(float y, float x) {
  const double angle = atan_of_quotient(abs(static_cast<double>(y)), abs(static_cast<double>(x)));
  return copysign(static_cast<float>(bits(x) < 0 ? kPi - angle : angle), y);
}

// |x| < 0.92: x + x * P(x^2); above: 1 - e^(-a * Q(a)).
OWL_MATH float erf(float x) {
  const float x2 = x * x;
  const float p = poly(x2, 1.2837917e-01f, -3.7612632e-01f, 1.1283676e-01f, -2.6858533e-02f, 5.199148e-03f,
                       -8.123187e-04f, 8.293013e-05f);
  const float near = fma(x, p, x);
  const float a = abs(x);
  const float q = poly(a, 1.1285517e+00f, 6.356254e-01f, 1.0526235e-01f, -2.267369e-02f, 2.9298288e-03f,
                       -4.9446633e-05f, -4.5613302e-05f, 4.9412697e-06f);
  const float far = 1.0f - exp_inside(-(a * q));
  return a < 0.92f ? near : copysign(a > 4.0f ? 1.0f : far, x);
}

// e^x in double, good to 2^-34, for -700 < x < 700.
OWL_MATH double exp_double(double x) {
  const double sum = fma(x, 1.4426950408889634, kRoundToPow2Double), n = sum - kRoundToPow2Double;
  const double r = fma(n, -0.69314718055994531, x);
  const double p = poly(r, 0.9999999999601432, 1.0000000002529756, 0.5000000107681423, 0.16666665079335719,
                        0.0416662165967334, 0.008333565691388822, 0.001394877481379322, 0.0001977450029376724);
  return p * pow2_of_sum(sum);
}

// x * Phi(x), the erf form. With z = |x| Phi's lower tail is e^(-z^2/2) * G(z), so that it keeps its digits far out. G
// is a quotient of polynomials in double; z^2 is exact in two parts, because an error of the exponent grows with it.
OWL_MATH float gelu(float x) {
  const float z = at_most(abs(x), 15.0f);  // there the tail is 0
  const float square = z * z, rest = exact_fma(z, z, -square);
  const float sum = fma(square, -0.72134752f, kRoundToHalves), n = sum - kRoundToHalves;
  const float r = fma(n, -kLn2High, -0.5f * square) + fma(n, -kLn2Low, -0.5f * rest);
  const double w = static_cast<double>(z), p = static_cast<double>(exp_poly_minus_1(r));
  const double g = w * poly(w, 0.500000002444, 0.435451500077, 0.181133770205, 0.0399261002278, 0.00401162748147) /
                   poly(w, 1.0, 1.66878791389, 1.1937635715, 0.463923792848, 0.100087361456, 0.0100555133857);
  const Halves<float> scale = pow2_halves(sum);
  const float tail = static_cast<float>(fma(g, p, g)) * scale.a * scale.b;
  return (x < 0.0f ? -0.0f : x) - tail;
}
// Its approximation by tanh, as x / (1 + e^(-2 u)): 1 + tanh(u) would lose all digits far out.
OWL_MATH float gelu_tanh(float x) {
  double z = static_cast<double>(x);
  z = z > 15.0 ? 15.0 : z;
  z = z < -15.0 ? -15.0 : z;
  const double minus_2u = -1.5957691216057308 * fma(0.044715 * (z * z), z, z);
  const float y = static_cast<float>(static_cast<double>(x) / (1.0 + exp_double(minus_2u)));
  return x < -15.0f ? -0.0f : y;
}

// e^|x| in double, up to beyond the range of float.
OWL_MATH double exp_of_abs(float x) {
  const double a = abs(static_cast<double>(x));
  return exp_double(a > 100.0 ? 100.0 : a);
}
OWL_MATH float sinh(float x) {
  const double a = abs(static_cast<double>(x)), b = a > 1.0 ? 1.0 : a, b2 = b * b;
  const double near = b * poly(b2, 1.0, 0.16666666646842135, 0.00833333967591706, 0.00019838101968683888,
                               2.8062802582276946e-06);
  const double e = exp_of_abs(x), far = 0.5 * (e - 1.0 / e);
  return copysign(static_cast<float>(a > 1.0 ? far : near), x);
}
OWL_MATH float cosh(float x) {
  const double e = exp_of_abs(x);
  return static_cast<float>(0.5 * (e + 1.0 / e));
}

// x / (1 + e^-x), or x * e^x / (1 + e^x), whose numerator rounds once; what rounding the sum and the quotient took away
// comes back as a correction. Far out e^x is denormal while x * e^x is not.
OWL_MATH float silu(float x) {
  const float a = abs(x);
  const Reduced<float> d = reduce_ln2(-a, kRoundToHalves);
  const Halves<float> scale = pow2_halves(d.sum);
  const float p = exp_poly_minus_1(d.r), part = x * scale.a;
  const float numerator = x < 0.0f ? exact_fma(part, p, part) * scale.b : x;
  const float e = fma(scale.a, p, scale.a) * scale.b, sum = 1.0f + e, lost = e - (sum - 1.0f);
  const float inverse = 1.0f / sum, quotient = numerator * inverse;
  const float excess = fma(quotient, lost, exact_fma(quotient, sum, -numerator));
  const float y = fma(excess, -inverse, quotient);
  const float below = x < -100.0f ? -0.0f : y;
  return x <= 100.0f ? below : x;  // infinity, NaN
}
// x * tanh(ln(1 + w)) with w = e^x, which is x * n / (n + 2) with n = w * (w + 2).
OWL_MATH float mish(float x) {
  double z = static_cast<double>(x);
  z = z > 40.0 ? 40.0 : z;
  z = z < -110.0 ? -110.0 : z;
  const double w = exp_double(z), n = w * (w + 2.0);
  const float y = static_cast<float>(static_cast<double>(x) * (n / (n + 2.0)));
  return x < -110.0f ? -0.0f : y;
}

// The remainder of x / y with the sign of x, where |x / y| < kFmodRange: there every step in double is exact.
inline constexpr double kFmodRange = 268435456.0;  // 2^28
OWL_MATH float fmod(float x, float y) {
  const double a = abs(static_cast<double>(x)), b = abs(static_cast<double>(y));
  const double n = (a / b + kRoundDouble) - kRoundDouble;  // the quotient or one more
  double r = a - n * b;
  r = r < 0.0 ? r + b : r;
  r = ((y == kInf) | (y == -kInf)) & (a < static_cast<double>(kInf)) ? a : r;
  return r == r ? copysign(static_cast<float>(r), x) : kNaN;
}

// log2 of a positive double that is no denormal, good to 2^-43.
OWL_MATH double log2_double(double x) {
  const std::uint64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd;
  const std::uint64_t biased = (bits(x) - root_half + one) >> 52;  // exponent + 1023
  const double k = from_bits(biased | 0x4330000000000000) - (4503599627370496.0 + 1023.0);
  const double m = from_bits(bits(x) - (biased << 52) + one);
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  return fma(s, poly(s2, 2.8853900817779268, 0.961796694059078, 0.5770779526875569, 0.412208460646881,
                     0.3199321168503097, 0.28258056473161897), k);
}

// The logarithm of x to the base whose logarithm of 2 is `scale`.
OWL_MATH float scaled_log2(float x, double scale) {
  float result = static_cast<float>(log2_double(static_cast<double>(x)) * scale);
  result = x < kInf ? result : x;  // infinity, NaN
  result = x < 0.0f ? kNaN : result;
  return x == 0.0f ? -kInf : result;
}
OWL_MATH float log2(float x) { return scaled_log2(x, 1.0); }
OWL_MATH float log10(float x) { return scaled_log2(x, 0.301029995663981195); }

// 2^e in double, good to 2^-34; beyond the range of float the result is one that float has as infinity or 0.
OWL_MATH double exp2_double(double e) {
  e = e > 200.0 ? 200.0 : e;
  e = e < -200.0 ? -200.0 : e;
  const double sum = e + kRoundToPow2Double;
  const double f = e - (sum - kRoundToPow2Double);
  const double p = poly(f, 0.9999999999616822, 0.6931471807284592, 0.24022651198155517, 0.05550410353408487,
                        0.009618027253890913, 0.0013333922595505164, 0.00015469291082109108, 1.5201914231238013e-05);
  return p * pow2_of_sum(sum);
}
OWL_MATH float exp2(float x) { return static_cast<float>(exp2_double(static_cast<double>(x))); }

OWL_MATH float pow(float x, float y) {
  const float a = abs(x), b = abs(y);
  float r = static_cast<float>(exp2_double(static_cast<double>(y) * log2_double(static_cast<double>(a))));

  // The standard's special cases (C, annex F).
  const float y_small = b < 16777216.0f ? y : 0.0f;  // larger floats are even integers
  const std::int32_t y_int = static_cast<std::int32_t>(y_small);
  const bool integer = static_cast<float>(y_int) == y_small;
  r = a == 1.0f ? 1.0f : r;
  r = a == 0.0f ? (y > 0.0f ? 0.0f : kInf) : r;
  r = a == kInf ? (y > 0.0f ? kInf : 0.0f) : r;
  const std::int32_t odd = static_cast<std::int32_t>(static_cast<std::uint32_t>(integer ? y_int : 0) << 31);
  r = from_bits(bits(r) ^ (bits(x) & odd));  // an odd power keeps the sign; y_int is 0 where y is large
  const float root = integer ? r : kNaN;
  r = ((x < 0.0f) & (a < kInf)) ? root : r;
  r = ((x != x) | (y != y)) ? x + y : r;
  return ((y == 0.0f) | (x == 1.0f)) ? 1.0f : r;
}

// ---- float64 --------------------------------------------------------------------------------------------------------

// As in float32; `n * kLn2HighDouble` is exact.
inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr double kLn2HighDouble = 6.93147180369123816490e-01, kLn2LowDouble = 1.90821492927058770002e-10;
OWL_MATH Reduced<double> reduce_ln2(double x, double round) {
  const double sum = fma(x, kLog2E, round), n = sum - round;
  const double high = fma(n, -kLn2HighDouble, x), r = fma(n, -kLn2LowDouble, high);
  return {sum, r, fma(n, -kLn2LowDouble, high - r)};
}
// (e^r - 1 - r) / r^2, to 2^-60 of e^r
OWL_MATH double expm1_poly(double r) {
  return poly(r, 0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326136, 0.0013888888888883748,
              0.00019841269874820627, 2.4801587325547743e-05, 2.7557255400206422e-06, 2.75572736431103e-07,
              2.5105217004720745e-08, 2.0914686968086876e-09);
}
OWL_MATH double exp(double x) {
  const Reduced<double> d = reduce_ln2(x, kRoundToHalvesDouble);
  const Halves<double> scale = pow2_halves(d.sum);
  const double p = fma(d.r * d.r, expm1_poly(d.r), d.r), y = fma(scale.a, p, scale.a) * scale.b;
  const double below = x < -746.0 ? 0.0 : y;
  return x <= 710.0 ? below : x + static_cast<double>(kInf);
}
OWL_MATH double exp_not_positive(double x) { return exp(x); }
OWL_MATH double expm1(double x) {
  const Reduced<double> d = reduce_ln2(x, kRoundToPow2Double - 1.0);
  const double half = pow2_of_sum(d.sum);  // 2^(n - 1), because 2^1024 is out of range
  const double rest = fma(d.r * d.r, expm1_poly(d.r), d.e);
  double y = 2.0 * fma(half, rest, fma(half, d.r, half - 0.5));
  y = x < -60.0 ? -1.0 : y;
  y = x <= 710.0 ? y : x + static_cast<double>(kInf);
  return abs(x) < 1e-16 ? x : y;
}
OWL_MATH double tanh(double x) {
  const double a = abs(x);
  const Reduced<double> d = reduce_ln2(-(a + a), kRoundToPow2Double);
  const double t = pow2_of_sum(d.sum), p = d.r + fma(d.r * d.r, expm1_poly(d.r), d.e);
  const double y = fma(-t, p, 1.0 - t) / fma(t, p, 1.0 + t);
  return copysign(a > 22.0 ? 1.0 : y, x);
}
OWL_MATH double sigm(double x) {
  const double e = exp(-abs(x)), sum = 1.0 + e;
  const double y = (x < 0.0 ? e : 1.0) / sum, added = (sum - 1.0) - e;
  return fma(y, added, y);
}

// x = 2^k * (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); x positive and normal.
struct LogarithmDouble {
  double k, f;
};
OWL_MATH LogarithmDouble split_exponent(double x) {
  const std::uint64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd;
  const std::uint64_t biased = (bits(x) - root_half + one) >> 52;  // exponent + 1023
  const double k = from_bits(biased | 0x4330000000000000) - (4503599627370496.0 + 1023.0);
  return {k, from_bits(bits(x) - (biased << 52) + one) - 1.0};
}
// k * ln 2 + log(1 + f) + c by log(1 + f) = 2 artanh(f / (2 + f)); its coefficients are those of Sun's fdlibm.
template <bool kFused = true> OWL_MATH double ln_from(LogarithmDouble d, double c) {
  const double s = d.f / (2.0 + d.f), z = s * s, half = 0.5 * d.f * d.f;
  const double r = z * poly<kFused>(z, 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                                    2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                                    1.479819860511658591e-01);
  const double low = step<kFused>(d.k, kLn2LowDouble, c);
  return step<kFused>(d.k, kLn2HighDouble, d.f - (half - step<kFused>(s, half + r, low)));
}
template <bool kFused = true> OWL_MATH double ln(double x) {
  const bool small = x < 2.2250738585072014e-308;  // denormal
  const double normal = small ? x * 18014398509481984.0 : x, shift = small ? 54.0 : 0.0;
  LogarithmDouble d = split_exponent(normal);
  d.k -= shift;
  double result = ln_from<kFused>(d, 0.0);
  result = x < static_cast<double>(kInf) ? result : x;  // infinity, NaN
  result = x < 0.0 ? static_cast<double>(kNaN) : result;
  return x == 0.0 ? -static_cast<double>(kInf) : result;
}
// As in float32.
OWL_MATH double log1p_from(double x, double u) {
  LogarithmDouble d = split_exponent(u);
  const bool near = d.k == 0.0;
  const double lost = x > 1.0 ? 1.0 - (u - x) : x - (u - 1.0);
  const double k = d.k > 64.0 ? 64.0 : d.k;  // beyond, nothing was lost
  const double c = near ? 0.0 : lost * pow2_of_sum(kRoundToPow2Double - k) * (1.0 - d.f);
  d.f = near ? x : d.f;
  return ln_from(d, c);
}
OWL_MATH double log1p(double x) {
  double result = log1p_from(x, 1.0 + x);
  result = x < static_cast<double>(kInf) ? result : x;  // infinity, NaN
  result = x < -1.0 ? static_cast<double>(kNaN) : result;
  result = x == -1.0 ? -static_cast<double>(kInf) : result;
  return abs(x) < 1e-16 ? x : result;
}
OWL_MATH double softplus(double x) {
  const double e = exp(-abs(x));
  return (x > 0.0 ? x : 0.0) + log1p_from(e, 1.0 + e);
}

// The C library's.
OWL_MATH double sin(double x) { return __builtin_sin(x); }
OWL_MATH double cos(double x) { return __builtin_cos(x); }
OWL_MATH double tan(double x) { return __builtin_tan(x); }
OWL_MATH double asin(double x) { return __builtin_asin(x); }
OWL_MATH double acos(double x) { return __builtin_acos(x); }
OWL_MATH double atan(double x) { return __builtin_atan(x); }
OWL_MATH double atan2(double y, double x) { return __builtin_atan2(y, x); }
OWL_MATH double sinh(double x) { return __builtin_sinh(x); }
OWL_MATH double cosh(double x) { return __builtin_cosh(x); }
OWL_MATH double log2(double x) { return __builtin_log2(x); }
OWL_MATH double log10(double x) { return __builtin_log10(x); }
OWL_MATH double exp2(double x) { return __builtin_exp2(x); }
OWL_MATH double fmod(double x, double y) { return __builtin_fmod(x, y); }
OWL_MATH double erf(double x) { return __builtin_erf(x); }
OWL_MATH double pow(double x, double y) { return __builtin_pow(x, y); }
OWL_MATH double silu(double x) {
  const double y = x / (1.0 + exp(-x));
  return x < -750.0 ? -0.0 : y;
}
OWL_MATH double mish(double x) {
  const double w = exp(x > 300.0 ? 300.0 : x), n = w * (w + 2.0);
  const double y = x * (n / (n + 2.0));
  return x < -750.0 ? -0.0 : y;
}
OWL_MATH double gelu(double x) {
  const double y = 0.5 * x * __builtin_erfc(x * -0.70710678118654752);
  return x < -40.0 ? -0.0 : y;
}
OWL_MATH double gelu_tanh(double x) {
  const double y = x / (1.0 + exp(-1.5957691216057308 * fma(0.044715 * (x * x), x, x)));
  return x < -40.0 ? -0.0 : y;
}

#undef OWL_FUSED

}  // namespace
}  // namespace owl::math
