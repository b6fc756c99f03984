// The elementwise operations. Each is one struct: what it is called, how its type follows from its operands', and its
// scalar expression; and one entry in the list, which for functions is in owl/elewise.h. Everything else (records, the
// interpreter's loops for every type and instruction set, GPUs' kernels, the public function, the documentation) is
// made from these.
//
// `eval` is a template over the element type: std::uint8_t (a bool, 0 or 1), std::int32_t, std::int64_t, float, double.
// Which of them are needed follows from the rule; uint8 is computed in int32, float16 and bfloat16 in float32, and the
// result converted (compute_type in owl/dtype.h). It must be branch-free to vectorise; its bits may depend on nothing but its
// arguments.
#pragma once

#include <cstdint>

#include "graph/type_rule.h"
#include "ops/math.h"
#include "ops/narrow.h"
#include "owl/elewise.h"

namespace owl {

struct ElementwiseInfo {
  const char* name;
  const char* doc;
  int arity;
  TypeRule rule;
  bool in_elewise = true;  // offered as elewise.<name>
  float cost = 1;          // of one element, in additions
};

inline constexpr bool kOperator = false;  // for in_elewise: reached by an operator or a method instead

// Anonymous, like ops/math.h: these are compiled once for each instruction set and must not be merged.
namespace {
namespace elementwise_ops {

using Bool = std::uint8_t;

template <class A, class B> inline constexpr bool same = false;
template <class A> inline constexpr bool same<A, A> = true;
template <class T> inline constexpr bool is_bool = same<T, Bool>;
template <class T> inline constexpr bool is_int = same<T, std::int32_t> || same<T, std::int64_t>;
template <class T> inline constexpr bool is_half = same<T, Float16> || same<T, BFloat16>;

#ifndef OWL_EVAL  // as OWL_MATH in ops/math.h
#define OWL_EVAL template <class T> [[gnu::always_inline]] static
#endif

// Integers wrap around.
OWL_MATH std::int32_t wrap(std::uint32_t x) { return static_cast<std::int32_t>(x); }
OWL_MATH std::int64_t wrap(std::uint64_t x) { return static_cast<std::int64_t>(x); }
OWL_MATH std::uint32_t u(std::int32_t x) { return static_cast<std::uint32_t>(x); }
OWL_MATH std::uint64_t u(std::int64_t x) { return static_cast<std::uint64_t>(x); }

// The floats that fit an integer type: at least `low`, below `end`.
template <class T> struct Range;
template <> struct Range<std::int32_t> { static constexpr double low = -2147483648.0, end = 2147483648.0; };
template <> struct Range<std::int64_t> { static constexpr double low = -9223372036854775808.0, end = 9223372036854775808.0; };

// To bool: whether x is not 0. Floats to int32 and int64: toward zero, saturating, NaN to 0; from there to uint8, and
// among integers, it wraps around. To halves: to the nearest, once.
template <class From, class To> OWL_MATH To convert(From x) {
  if constexpr (is_half<From>) {
    if constexpr (same<From, To>) return x;
    else return convert<float, To>(narrow::widen(x));
  } else if constexpr (is_bool<To>) {
    return x != From(0);
  } else if constexpr (is_half<To>) {
    if constexpr (same<From, double> || is_int<From>) return narrow::round(narrow::round_to_odd(static_cast<double>(x)), To{});
    else return narrow::round(static_cast<float>(x), To{});
  } else if constexpr (same<To, UInt8> && (same<From, float> || same<From, double>)) {
    return static_cast<To>(convert<From, std::int32_t>(x));
  } else if constexpr (is_int<To> && (same<From, float> || same<From, double>)) {
    constexpr From low = Range<To>::low, end = Range<To>::end;
    constexpr To least = static_cast<To>(low), most = ~least;
    const bool inside = (x >= low) & (x < end);
    const auto y = static_cast<To>(inside ? x : From(0));
    return inside ? y : x < low ? least : x > From(0) ? most : To(0);
  } else {
    return static_cast<To>(x);
  }
}

struct Cast {
  static constexpr ElementwiseInfo info{"cast", "x in another type", 1, TypeRule::kCast, kOperator};
};

// ---- arithmetic -----------------------------------------------------------------------------------------------------

struct Add {
  static constexpr ElementwiseInfo info{"add", "x + y (of bools: or)", 2, TypeRule::kArithmetic, kOperator};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_bool<T>) return x | y;
    else if constexpr (is_int<T>) return wrap(u(x) + u(y));
    else return x + y;
  }
};
struct Sub {
  static constexpr ElementwiseInfo info{"sub", "x - y", 2, TypeRule::kNoBool, kOperator};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_int<T>) return wrap(u(x) - u(y));
    else return x - y;
  }
};
struct Mult {
  static constexpr ElementwiseInfo info{"mult", "the elementwise product x * y (of bools: and)", 2,
                                        TypeRule::kArithmetic};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_bool<T>) return x & y;
    else if constexpr (is_int<T>) return wrap(u(x) * u(y));
    else return x * y;
  }
};
struct Div {
  static constexpr ElementwiseInfo info{"div", "x / y (of integers: float32)", 2, TypeRule::kFloat, kOperator, 3};
  OWL_EVAL T eval(T x, T y) { return x / y; }
};
struct Pow {
  static constexpr ElementwiseInfo info{"pow", "x to the power of y", 2, TypeRule::kIntFromBool, kOperator, 40};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_int<T>) {
      decltype(u(x)) result = 1, base = u(x);
      for (auto n = y < 0 ? u(T(0)) : u(y); n; n >>= 1, base *= base)
        if (n & 1) result *= base;
      const T inverse = x == 1 ? 1 : x == -1 ? ((y & 1) ? -1 : 1) : 0;  // 1 / x^|y|, toward zero
      return y < 0 ? inverse : wrap(result);
    } else {
      return math::pow(x, y);
    }
  }
};
// NumPy's: rounded down, and a remainder with the sign of y. Integers by 0 give 0.
template <class T> OWL_MATH T floor_of(T x) {
  if constexpr (same<T, float>) return __builtin_floorf(x);
  else return __builtin_floor(x);
}
template <class T> OWL_MATH T floor_from_fmod(T r, T x, T y) {
  T quotient = (x - r) / y;
  quotient = (r != T(0)) & ((y < T(0)) != (r < T(0))) ? quotient - T(1) : quotient;
  T whole = floor_of(quotient);
  whole = quotient - whole > T(0.5) ? whole + T(1) : whole;
  whole = quotient == T(0) ? math::copysign(T(0), x / y) : whole;
  return y == T(0) ? x / y : whole;
}
template <class T> OWL_MATH T remainder_from_fmod(T r, T y) {
  const T other_sign = (y < T(0)) != (r < T(0)) ? r + y : r;
  return r == T(0) ? math::copysign(T(0), y) : other_sign;
}
// Where the quotient is beyond math::kFmodRange, fmod goes through the C library.
template <class T> OWL_MATH bool has_large_quotient(T x, T y) {
  if constexpr (same<T, float>) {
    const double a = math::abs(static_cast<double>(x)), b = math::abs(static_cast<double>(y));
    return (a >= b * math::kFmodRange) & (a < static_cast<double>(math::kInf)) & (b > 0.0);
  } else {
    return false;
  }
}
template <class T> OWL_MATH T exact_fmod(T x, T y) {
  if constexpr (same<T, float>) {
    const float r = __builtin_fmodf(x, y);
    return r == r ? r : math::kNaN;  // as math::fmod: a tile goes through one or the other as a whole
  } else {
    return math::fmod(x, y);
  }
}

struct FloorDivide {
  static constexpr ElementwiseInfo info{"floor_divide", "x / y rounded down (of integers by 0: 0)", 2,
                                        TypeRule::kIntFromBool, kOperator, 20};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_int<T>) {
      const T divisor = (y == 0) | (y == -1) ? 1 : y;
      const T toward_0 = x / divisor, rest = x % divisor;
      const T down = toward_0 - ((rest != 0) & ((rest < 0) != (divisor < 0)));
      return y == 0 ? 0 : y == -1 ? wrap(0u - u(x)) : down;
    } else {
      return floor_from_fmod(math::fmod(x, y), x, y);
    }
  }
  OWL_EVAL bool rare(T x, T y) { return has_large_quotient(x, y); }
  OWL_EVAL T eval_rare(T x, T y) {
    if constexpr (is_int<T>) return eval<T>(x, y);
    else return floor_from_fmod(exact_fmod(x, y), x, y);
  }
};
struct Remainder {
  static constexpr ElementwiseInfo info{"remainder",
                                        "x - y * floor_divide(x, y), with the sign of y (of integers by 0: 0)", 2,
                                        TypeRule::kIntFromBool, kOperator, 18};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_int<T>) {
      const T rest = x % ((y == 0) | (y == -1) ? 1 : y);
      return (rest != 0) & ((rest < 0) != (y < 0)) ? rest + y : rest;
    } else {
      return remainder_from_fmod(math::fmod(x, y), y);
    }
  }
  OWL_EVAL bool rare(T x, T y) { return has_large_quotient(x, y); }
  OWL_EVAL T eval_rare(T x, T y) {
    if constexpr (is_int<T>) return eval<T>(x, y);
    else return remainder_from_fmod(exact_fmod(x, y), y);
  }
};
struct BitAnd {
  static constexpr ElementwiseInfo info{"bit_and", "x & y: of each bit; of bools: and", 2, TypeRule::kInteger,
                                        kOperator};
  OWL_EVAL T eval(T x, T y) { return x & y; }
};
struct BitOr {
  static constexpr ElementwiseInfo info{"bit_or", "x | y: of each bit; of bools: or", 2, TypeRule::kInteger, kOperator};
  OWL_EVAL T eval(T x, T y) { return x | y; }
};
struct BitXor {
  static constexpr ElementwiseInfo info{"bit_xor", "x ^ y: of each bit; of bools: whether they differ", 2,
                                        TypeRule::kInteger, kOperator};
  OWL_EVAL T eval(T x, T y) { return x ^ y; }
};
struct BitNot {
  static constexpr ElementwiseInfo info{"bit_not", "~x: of each bit; of bools: not", 1, TypeRule::kInteger, kOperator};
  OWL_EVAL T eval(T x) {
    if constexpr (is_bool<T>) return !x;
    else return ~x;
  }
};
struct Neg {
  static constexpr ElementwiseInfo info{"neg", "-x", 1, TypeRule::kNoBool, kOperator};
  OWL_EVAL T eval(T x) {
    if constexpr (is_int<T>) return wrap(0u - u(x));
    else return -x;
  }
};

// ---- comparisons ----------------------------------------------------------------------------------------------------

#define OWL_COMPARISON(STRUCT, NAME, SYMBOL)                                                                \
  struct STRUCT {                                                                                           \
    static constexpr ElementwiseInfo info{NAME, "x " #SYMBOL " y, a bool", 2, TypeRule::kCompare, kOperator}; \
    OWL_EVAL Bool eval(T x, T y) { return x SYMBOL y; }                                                     \
  }
OWL_COMPARISON(Gt, "gt", >);
OWL_COMPARISON(Ge, "ge", >=);
OWL_COMPARISON(Lt, "lt", <);
OWL_COMPARISON(Le, "le", <=);
OWL_COMPARISON(Eq, "eq", ==);
OWL_COMPARISON(Ne, "ne", !=);
#undef OWL_COMPARISON

struct IsNan {
  static constexpr ElementwiseInfo info{"isnan", "whether x is not a number, a bool", 1, TypeRule::kPredicate};
  OWL_EVAL Bool eval(T x) { return x != x; }
};

struct IsInf {
  static constexpr ElementwiseInfo info{"isinf", "whether x is infinite, a bool", 1, TypeRule::kPredicate};
  OWL_EVAL Bool eval(T x) {
    if constexpr (is_bool<T> || is_int<T>) return false;
    else return math::abs(x) == T(math::kInf);
  }
};
struct IsFinite {
  static constexpr ElementwiseInfo info{"isfinite", "whether x is neither infinite nor NaN, a bool", 1,
                                        TypeRule::kPredicate};
  OWL_EVAL Bool eval(T x) {
    if constexpr (is_bool<T> || is_int<T>) return true;
    else return math::abs(x) < T(math::kInf);
  }
};

// ---- choices; a NaN operand gives NaN, as in NumPy ------------------------------------------------------------------

struct Maximum {
  static constexpr ElementwiseInfo info{"maximum", "the larger of x and y", 2, TypeRule::kArithmetic};
  OWL_EVAL T eval(T x, T y) {
    const T m = x >= y ? x : y;  // y if it is a NaN
    return x != x ? x : m;
  }
};
struct Minimum {
  static constexpr ElementwiseInfo info{"minimum", "the smaller of x and y", 2, TypeRule::kArithmetic};
  OWL_EVAL T eval(T x, T y) {
    const T m = x <= y ? x : y;  // y if it is a NaN
    return x != x ? x : m;
  }
};
struct Clip {
  static constexpr ElementwiseInfo info{"clip", "minimum(maximum(x, low), high)", 3, TypeRule::kArithmetic, true, 2};
  // Each choice is one instruction, which gives x if it is a NaN but does not propagate a bound that is one.
  OWL_EVAL T eval(T x, T low, T high) {
    const T m = low > x ? low : x;
    return high < m ? high : m;
  }
  OWL_EVAL bool rare(T, T low, T high) { return (low != low) | (high != high); }
  OWL_EVAL T eval_rare(T x, T low, T high) { return Minimum::eval<T>(Maximum::eval<T>(x, low), high); }
};
struct Where {
  static constexpr ElementwiseInfo info{"where", "x where the condition holds, else y", 3, TypeRule::kSelect};
  OWL_EVAL T eval(Bool condition, T x, T y) { return condition ? x : y; }
};

// ---- activations and their backward forms ---------------------------------------------------------------------------

struct Relu {
  static constexpr ElementwiseInfo info{"relu", "x where x > 0, else 0", 1, TypeRule::kIntFromBool};
  OWL_EVAL T eval(T x) { return x < T(0) ? T(0) : x; }
};
struct ReluBack {
  static constexpr ElementwiseInfo info{"relu_back", "(err, y): err where y > 0, else 0", 2, TypeRule::kFloat};
  OWL_EVAL T eval(T err, T y) { return y > T(0) ? err : T(0); }
};
struct Sigm {
  static constexpr ElementwiseInfo info{"sigm", "1 / (1 + exp(-x))", 1, TypeRule::kFloat, true, 12};
  OWL_EVAL T eval(T x) { return math::sigm(x); }
};
struct SigmBack {
  static constexpr ElementwiseInfo info{"sigm_back", "(err, y): err * y * (1 - y)", 2, TypeRule::kFloat, true, 2};
  OWL_EVAL T eval(T err, T y) { return err * (y * (T(1) - y)); }
};
struct SigmBack1 {
  static constexpr ElementwiseInfo info{"sigm_back1", "(y): y * (1 - y)", 1, TypeRule::kFloat, kOperator, 2};
  OWL_EVAL T eval(T y) { return y * (T(1) - y); }
};
struct Tanh {
  static constexpr ElementwiseInfo info{"tanh", "the hyperbolic tangent", 1, TypeRule::kFloat, true, 12};
  OWL_EVAL T eval(T x) { return math::tanh(x); }
};
struct TanhBack {
  static constexpr ElementwiseInfo info{"tanh_back", "(err, y): err * (1 - y * y)", 2, TypeRule::kFloat, true, 2};
  OWL_EVAL T eval(T err, T y) { return err * (T(1) - y * y); }
};
struct TanhBack1 {
  static constexpr ElementwiseInfo info{"tanh_back1", "(y): 1 - y * y", 1, TypeRule::kFloat, kOperator, 2};
  OWL_EVAL T eval(T y) { return T(1) - y * y; }
};
struct Gelu {
  static constexpr ElementwiseInfo info{"gelu", "x * Phi(x), the erf form", 1, TypeRule::kFloat, true, 40};
  OWL_EVAL T eval(T x) { return math::gelu(x); }
};
struct GeluTanh {
  static constexpr ElementwiseInfo info{"gelu_tanh", "x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))", 1,
                                        TypeRule::kFloat, kOperator, 30};
  OWL_EVAL T eval(T x) { return math::gelu_tanh(x); }
};
struct LeakyRelu {
  static constexpr ElementwiseInfo info{"leaky_relu", "x where x > 0, else slope * x", 2, TypeRule::kFloat, true, 2};
  OWL_EVAL T eval(T x, T slope) { return x > T(0) ? x : slope * x; }
};
struct Elu {
  static constexpr ElementwiseInfo info{"elu", "x where x > 0, else alpha * (exp(x) - 1)", 2, TypeRule::kFloat, true,
                                        12};
  OWL_EVAL T eval(T x, T alpha) {
    const T y = alpha * math::expm1(x);
    return x > T(0) ? x : y;
  }
};
struct Softplus {
  static constexpr ElementwiseInfo info{"softplus", "ln(1 + exp(x))", 1, TypeRule::kFloat, true, 25};
  OWL_EVAL T eval(T x) { return math::softplus(x); }
};
struct Silu {
  static constexpr ElementwiseInfo info{"silu", "x * sigm(x), also called swish", 1, TypeRule::kFloat, true, 30};
  OWL_EVAL T eval(T x) { return math::silu(x); }
};
struct HardSigmoid {
  static constexpr ElementwiseInfo info{"hard_sigmoid", "clip(x / 6 + 0.5, 0, 1)", 1, TypeRule::kFloat, true, 6};
  OWL_EVAL T eval(T x) { return Clip::eval<T>(x / T(6) + T(0.5), T(0), T(1)); }
};
struct HardSwish {
  static constexpr ElementwiseInfo info{"hard_swish", "x * hard_sigmoid(x)", 1, TypeRule::kFloat, true, 7};
  OWL_EVAL T eval(T x) { return x * HardSigmoid::eval<T>(x); }
};
struct Mish {
  static constexpr ElementwiseInfo info{"mish", "x * tanh(softplus(x))", 1, TypeRule::kFloat, true, 35};
  OWL_EVAL T eval(T x) { return math::mish(x); }
};

// ---- functions ------------------------------------------------------------------------------------------------------

#define OWL_FUNCTION(STRUCT, NAME, DOC, COST)                                             \
  struct STRUCT {                                                                         \
    static constexpr ElementwiseInfo info{#NAME, DOC, 1, TypeRule::kFloat, true, COST};   \
    OWL_EVAL T eval(T x) { return math::NAME(x); }                                        \
  }
OWL_FUNCTION(Exp, exp, "e to the power of x", 10);
OWL_FUNCTION(Expm1, expm1, "exp(x) - 1, exact near 0", 12);
OWL_FUNCTION(Ln, ln, "the natural logarithm", 14);
OWL_FUNCTION(Log1p, log1p, "ln(1 + x), exact near 0", 20);
OWL_FUNCTION(Exp2, exp2, "2 to the power of x", 20);
OWL_FUNCTION(Log2, log2, "the logarithm to the base 2", 30);
OWL_FUNCTION(Log10, log10, "the logarithm to the base 10", 30);
OWL_FUNCTION(Sqrt, sqrt, "the square root", 4);
OWL_FUNCTION(Erf, erf, "the error function", 25);
OWL_FUNCTION(Asin, asin, "the arcsine, from -pi/2 to pi/2", 35);
OWL_FUNCTION(Acos, acos, "the arccosine, from 0 to pi", 35);
OWL_FUNCTION(Atan, atan, "the arctangent, from -pi/2 to pi/2", 40);
OWL_FUNCTION(Sinh, sinh, "the hyperbolic sine", 40);
OWL_FUNCTION(Cosh, cosh, "the hyperbolic cosine", 35);
#undef OWL_FUNCTION

struct Rsqrt {
  static constexpr ElementwiseInfo info{"rsqrt", "1 / sqrt(x)", 1, TypeRule::kFloat, true, 7};
  OWL_EVAL T eval(T x) { return T(1) / math::sqrt(x); }
};
struct Atan2 {
  static constexpr ElementwiseInfo info{"atan2", "the angle of the point (y, x), from -pi to pi", 2, TypeRule::kFloat,
                                        true, 45};
  OWL_EVAL T eval(T y, T x) { return math::atan2(y, x); }
};
struct Fmod {
  static constexpr ElementwiseInfo info{"fmod", "the remainder of x / y with the sign of x (of integers by 0: 0)", 2,
                                        TypeRule::kIntFromBool, true, 15};
  OWL_EVAL T eval(T x, T y) {
    if constexpr (is_int<T>) {
      return x % ((y == 0) | (y == -1) ? 1 : y);
    } else {
      return math::fmod(x, y);
    }
  }
  OWL_EVAL bool rare(T x, T y) { return has_large_quotient(x, y); }
  OWL_EVAL T eval_rare(T x, T y) {
    if constexpr (is_int<T>) return eval<T>(x, y);
    else return exact_fmod(x, y);
  }
};

// Beyond kSinRange the fast reduction loses digits: tiles that hold such an angle go through the C library.
template <class T> OWL_MATH bool is_large_angle(T x) {
  if constexpr (same<T, float>) return math::abs(x) > math::kSinRange;
  else return false;
}
struct Sin {
  static constexpr ElementwiseInfo info{"sin", "the sine", 1, TypeRule::kFloat, true, 22};
  OWL_EVAL T eval(T x) { return math::sin(x); }
  OWL_EVAL bool rare(T x) { return is_large_angle(x); }
  OWL_EVAL T eval_rare(T x) { return static_cast<T>(__builtin_sin(static_cast<double>(x))); }
};
struct Cos {
  static constexpr ElementwiseInfo info{"cos", "the cosine", 1, TypeRule::kFloat, true, 22};
  OWL_EVAL T eval(T x) { return math::cos(x); }
  OWL_EVAL bool rare(T x) { return is_large_angle(x); }
  OWL_EVAL T eval_rare(T x) { return static_cast<T>(__builtin_cos(static_cast<double>(x))); }
};
struct Tan {
  static constexpr ElementwiseInfo info{"tan", "the tangent", 1, TypeRule::kFloat, true, 40};
  OWL_EVAL T eval(T x) { return math::tan(x); }
  OWL_EVAL bool rare(T x) { return is_large_angle(x); }
  OWL_EVAL T eval_rare(T x) { return static_cast<T>(__builtin_tan(static_cast<double>(x))); }
};
struct Floor {
  static constexpr ElementwiseInfo info{"floor", "the largest integer not above x", 1, TypeRule::kFloat};
  OWL_EVAL T eval(T x) { return floor_of(x); }
};
struct Ceil {
  static constexpr ElementwiseInfo info{"ceil", "the smallest integer not below x", 1, TypeRule::kFloat};
  OWL_EVAL T eval(T x) {
    if constexpr (same<T, float>) return __builtin_ceilf(x);
    else return __builtin_ceil(x);
  }
};
struct Round {
  static constexpr ElementwiseInfo info{"round", "the nearest integer, of two the even one", 1, TypeRule::kIntFromBool};
  OWL_EVAL T eval(T x) {
    if constexpr (is_int<T>) return x;
    else if constexpr (same<T, float>) return __builtin_rintf(x);
    else return __builtin_rint(x);
  }
};
struct Trunc {
  static constexpr ElementwiseInfo info{"trunc", "the integer part: x rounded toward 0", 1, TypeRule::kIntFromBool};
  OWL_EVAL T eval(T x) {
    if constexpr (is_int<T>) return x;
    else if constexpr (same<T, float>) return __builtin_truncf(x);
    else return __builtin_trunc(x);
  }
};
struct Square {
  static constexpr ElementwiseInfo info{"square", "x * x", 1, TypeRule::kIntFromBool};
  OWL_EVAL T eval(T x) { return Mult::eval<T>(x, x); }
};
struct Abs {
  static constexpr ElementwiseInfo info{"abs", "the absolute value", 1, TypeRule::kIntFromBool};
  OWL_EVAL T eval(T x) {
    if constexpr (is_int<T>) return x < 0 ? wrap(0u - u(x)) : x;
    else return math::abs(x);
  }
};
struct Sign {
  static constexpr ElementwiseInfo info{"sign", "-1, 0 or 1 (NaN stays NaN)", 1, TypeRule::kIntFromBool, true, 2};
  OWL_EVAL T eval(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x == T(0) ? T(0) : x; }
};

// ---- the list; an operation's place in it is its code ---------------------------------------------------------------

#ifndef OWL_ON_DEVICE

template <class... Ops> struct OpList {
  static constexpr int count = sizeof...(Ops);
  static constexpr ElementwiseInfo infos[] = {Ops::info...};
  template <class Op> static constexpr int code = [] {
    int at = 0;
    (void)((same<Op, Ops> || (++at, false)) || ...);
    return at;
  }();
};
// What operators and methods reach is listed here, the functions of owl::elewise in the public header.
#define OWL_STRUCT(NAME, STRUCT, ...) , STRUCT
using All = OpList<Cast, Add, Sub, Div, Pow, Neg, Gt, Ge, Lt, Le, Eq, Ne, FloorDivide, Remainder, BitAnd, BitOr, BitXor,
                   BitNot, SigmBack1, TanhBack1, GeluTanh
                   OWL_ELEWISE_UNARY(OWL_STRUCT) OWL_ELEWISE_BINARY(OWL_STRUCT) OWL_ELEWISE_PARAMETRIC(OWL_STRUCT)
                   OWL_ELEWISE_TERNARY(OWL_STRUCT)>;
#undef OWL_STRUCT

// What a struct is called, by its code: a GPU's programs are printed in terms of them.
inline constexpr const char* struct_names[] = {
#define OWL_STRUCT(NAME, STRUCT, ...) #STRUCT,
    "Cast", "Add", "Sub", "Div", "Pow", "Neg", "Gt", "Ge", "Lt", "Le", "Eq", "Ne", "FloorDivide", "Remainder", "BitAnd",
    "BitOr", "BitXor", "BitNot", "SigmBack1", "TanhBack1", "GeluTanh",
    OWL_ELEWISE_UNARY(OWL_STRUCT) OWL_ELEWISE_BINARY(OWL_STRUCT) OWL_ELEWISE_PARAMETRIC(OWL_STRUCT)
    OWL_ELEWISE_TERNARY(OWL_STRUCT)
#undef OWL_STRUCT
};

#endif
#undef OWL_EVAL

}  // namespace elementwise_ops
}  // namespace

#ifndef OWL_ON_DEVICE
inline constexpr int kElementwiseCount = elementwise_ops::All::count;
#endif

}  // namespace owl
