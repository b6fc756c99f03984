// The gradients of the elementwise operations, a line each. They are no part of ops/elementwise.h, which is compiled
// for each instruction set and is part of GPUs' kernels.
//
// A rule reads what the operation has in memory anyway, where it can (a relu its result, which the next operation
// reads), and records few operations: fused, they cost no pass over memory.
#include <array>
#include <cmath>
#include <numbers>
#include <string_view>

#include "graph/record.h"
#include "ops/elementwise.h"
#include "ops/records.h"
#include "ops/terms.h"
#include "owl/elewise.h"

namespace owl {

namespace {

DType type_of(const Rule& r) { return r.result_type().dtype; }
NArray is_positive(const Term& x) { return x.operand() > 0.0; }
// A function of a saved operand, which is an array wherever its gradient is wanted.
template <class F> Term of(const Term& x, F function) { return function(x.array()); }

// x ** y: what multiplies the error at x.
Term power_of_base(const Rule& r) {
  const Term x = r.operand(0), y = r.operand(1);
  if (y.is_number()) {
    if (y.number() == 0) return {};
    return mul(y.number(), y.number() == 1 ? Term(1.0) : Term(pow(x.operand(), y.number() - 1)));
  }
  // At y = 0 the power is 1 for every x, 0 included, where x ** -1 is infinite.
  return select(y.operand() == 0.0, {}, mul(y, pow(x.operand(), y.operand() - 1.0)), type_of(r));
}

// x ** y: the gradient of y; 0, not NaN, at x = 0, and so are the derivatives of what is recorded here.
Term power_of_exponent(const Rule& r) {
  const Term x = r.operand(0), e = mul(r.error(), r.result());
  if (x.is_number()) return x.number() == 0 ? Term() : mul(e, std::log(x.number()));
  const NArray at_zero = x.operand() == 0.0;
  return select(at_zero, {}, mul(e, ln(where(at_zero, 1.0, x.operand()))), type_of(r));
}

// Whole to the operand that is chosen, half to each of equals.
Term chosen(const Rule& r, const NArray& this_one) {
  const NArray equal = r.operand(0).operand() == r.operand(1).operand();
  return select(this_one, r.error(), keep(equal, mul(r.error(), 0.5), type_of(r)), type_of(r));
}

Term gelu_slope(const NArray& x) {
  const NArray below = (erf(x * std::numbers::sqrt2 * 0.5) + 1.0) * 0.5;
  const NArray density = exp(square(x) * -0.5) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2);
  return below + mult(x, density);
}

Term gelu_tanh_slope(const NArray& x) {
  constexpr double kRoot = std::numbers::sqrt2 * std::numbers::inv_sqrtpi, kCube = 0.044715;
  const NArray squares = square(x);
  const NArray t = tanh(mult(x, squares * kCube + 1.0) * kRoot);
  return (t + 1.0) * 0.5 + mult(mult(x, squares * (3 * kCube) + 1.0), tanh_back(t)) * (0.5 * kRoot);
}

Term silu_slope(const NArray& x) {
  const NArray s = sigm(x);
  return mult(s, mult(x, 1.0 - s) + 1.0);
}

Term mish_slope(const NArray& x) {
  const NArray t = tanh(softplus(x));
  return t + mult(mult(x, sigm(x)), tanh_back(t));
}

// Of hard_sigmoid: 1/6 between its bounds and at them.
Term ramp_slope(const Rule& r) { return keep(elewise::abs(r.operand(0).array()) <= 3.0, 1.0 / 6, type_of(r)); }

struct Line {
  std::string_view name;
  Gradient gradient;
};

constexpr Saves x = operand(0), y = operand(1), z = operand(2), value = result();

constexpr Line lines[] = {
    {"cast", {{}, [](Rule& r) { r.to(0, r.error()); }}},
    // arithmetic
    {"add", {{}, [](Rule& r) { r.to(0, r.error()); r.to(1, r.error()); }}},
    {"sub", {{}, [](Rule& r) { r.to(0, r.error()); r.to(1, [&] { return neg(r.error()); }); }}},
    {"mult", {{y, x}, [](Rule& r) {
       r.to(0, [&] { return mul(r.error(), r.operand(1)); });
       r.to(1, [&] { return mul(r.error(), r.operand(0)); });
     }}},
    {"div", {{y, y | value}, [](Rule& r) {
       r.to(0, [&] { return div(r.error(), r.operand(1)); });
       r.to(1, [&] { return neg(div(mul(r.error(), r.result()), r.operand(1))); });
     }}},
    {"pow", {{x | y, x | value}, [](Rule& r) {
       r.to(0, [&] { return mul(r.error(), power_of_base(r)); });
       r.to(1, [&] { return power_of_exponent(r); });
     }}},
    {"neg", {{}, [](Rule& r) { r.to(0, neg(r.error())); }}},
    {"square", {{x}, [](Rule& r) { r.to(0, mul(r.error(), mul(2.0, r.operand(0)))); }}},
    // comparisons, and what is flat almost everywhere: no path
    {"gt", no_gradient}, {"ge", no_gradient}, {"lt", no_gradient}, {"le", no_gradient}, {"eq", no_gradient},
    {"ne", no_gradient}, {"isnan", no_gradient}, {"isinf", no_gradient}, {"isfinite", no_gradient},
    {"sign", no_gradient}, {"floor", no_gradient}, {"ceil", no_gradient}, {"round", no_gradient},
    {"trunc", no_gradient}, {"floor_divide", no_gradient}, {"bit_and", no_gradient}, {"bit_or", no_gradient},
    {"bit_xor", no_gradient}, {"bit_not", no_gradient},
    // choices
    {"abs", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), elewise::sign))); }}},
    {"maximum", {{x | y, x | y}, [](Rule& r) {
       r.to(0, [&] { return chosen(r, r.operand(0).operand() > r.operand(1).operand()); });
       r.to(1, [&] { return chosen(r, r.operand(0).operand() < r.operand(1).operand()); });
     }}},
    {"minimum", {{x | y, x | y}, [](Rule& r) {
       r.to(0, [&] { return chosen(r, r.operand(0).operand() < r.operand(1).operand()); });
       r.to(1, [&] { return chosen(r, r.operand(0).operand() > r.operand(1).operand()); });
     }}},
    {"clip", {{x | y | z, x | y | z, x | y | z}, [](Rule& r) {  // minimum(maximum(x, low), high), x wins at its bounds
       const Operand a = r.operand(0).operand(), low = r.operand(1).operand(), high = r.operand(2).operand();
       r.to(0, [&] { return keep(mult(a >= low, a <= high), r.error(), type_of(r)); });
       r.to(1, [&] { return keep(mult(a < low, low <= high), r.error(), type_of(r)); });
       r.to(2, [&] { return keep(elewise::maximum(a, low) > high, r.error(), type_of(r)); });
     }}},
    {"where", {{{}, x, x}, [](Rule& r) {
       r.zero(0);
       r.to(1, [&] { return keep(r.operand(0).array(), r.error(), type_of(r)); });
       r.to(2, [&] { return keep(r.operand(0).array() == false, r.error(), type_of(r)); });
     }}},
    // activations and their backward forms
    {"relu", {{value}, [](Rule& r) { r.to(0, relu_back(r.error().operand(), r.result())); }}},
    {"relu_back", {{y}, [](Rule& r) {
       r.to(0, [&] { return relu_back(r.error().operand(), r.operand(1).operand()); });
       r.zero(1);
     }}},
    {"sigm", {{value}, [](Rule& r) { r.to(0, sigm_back(r.error().operand(), r.result())); }}},
    {"sigm_back", {{y, x | y}, [](Rule& r) {
       r.to(0, [&] { return sigm_back(r.error().operand(), r.operand(1).operand()); });
       r.to(1, [&] { return mul(mul(r.error(), r.operand(0)), sub(1.0, mul(2.0, r.operand(1)))); });
     }}},
    {"sigm_back1", {{x}, [](Rule& r) { r.to(0, mul(r.error(), sub(1.0, mul(2.0, r.operand(0))))); }}},
    {"tanh", {{value}, [](Rule& r) { r.to(0, tanh_back(r.error().operand(), r.result())); }}},
    {"tanh_back", {{y, x | y}, [](Rule& r) {
       r.to(0, [&] { return tanh_back(r.error().operand(), r.operand(1).operand()); });
       r.to(1, [&] { return mul(mul(r.error(), r.operand(0)), mul(-2.0, r.operand(1))); });
     }}},
    {"tanh_back1", {{x}, [](Rule& r) { r.to(0, mul(r.error(), mul(-2.0, r.operand(0)))); }}},
    {"gelu", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), gelu_slope))); }}},
    {"gelu_tanh", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), gelu_tanh_slope))); }}},
    {"leaky_relu", {{x | y, x}, [](Rule& r) {
       const NArray positive = is_positive(r.operand(0));
       r.to(0, [&] { return select(positive, r.error(), mul(r.error(), r.operand(1)), type_of(r)); });
       r.to(1, [&] { return select(positive, {}, mul(r.error(), r.operand(0)), type_of(r)); });
     }}},
    {"elu", {{x | y, x}, [](Rule& r) {  // the exponential only where it is chosen: elsewhere it might be infinite
       const NArray positive = is_positive(r.operand(0));
       const auto left = [&] { return where(positive, 0.0, r.operand(0).operand()); };
       r.to(0, [&] { return select(positive, r.error(), mul(r.error(), mul(r.operand(1), exp(left()))), type_of(r)); });
       r.to(1, [&] { return mul(r.error(), expm1(left())); });
     }}},
    {"softplus", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), elewise::sigm))); }}},
    {"silu", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), silu_slope))); }}},
    {"hard_sigmoid", {{x}, [](Rule& r) { r.to(0, mul(r.error(), ramp_slope(r))); }}},
    {"hard_swish", {{x}, [](Rule& r) {
       r.to(0, mul(r.error(), add(of(r.operand(0), elewise::hard_sigmoid), mul(r.operand(0), ramp_slope(r)))));
     }}},
    {"mish", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), mish_slope))); }}},
    // functions
    {"exp", {{value}, [](Rule& r) { r.to(0, mul(r.error(), r.result())); }}},
    {"expm1", {{value}, [](Rule& r) { r.to(0, mul(r.error(), r.result() + 1.0)); }}},
    {"ln", {{x}, [](Rule& r) { r.to(0, div(r.error(), r.operand(0))); }}},
    {"log1p", {{x}, [](Rule& r) { r.to(0, div(r.error(), add(r.operand(0), 1.0))); }}},
    {"exp2", {{value}, [](Rule& r) { r.to(0, mul(mul(r.error(), std::numbers::ln2), r.result())); }}},
    {"log2", {{x}, [](Rule& r) { r.to(0, div(mul(r.error(), 1 / std::numbers::ln2), r.operand(0))); }}},
    {"log10", {{x}, [](Rule& r) { r.to(0, div(mul(r.error(), 1 / std::numbers::ln10), r.operand(0))); }}},
    {"rsqrt", {{value}, [](Rule& r) { r.to(0, mul(r.error(), mul(-0.5, mult(square(r.result()), r.result())))); }}},
    {"sqrt", {{value}, [](Rule& r) { r.to(0, div(mul(0.5, r.error()), r.result())); }}},
    {"erf", {{x}, [](Rule& r) {
       r.to(0, mul(mul(r.error(), 2 * std::numbers::inv_sqrtpi), exp(-square(r.operand(0).array()))));
     }}},
    {"sin", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), elewise::cos))); }}},
    {"cos", {{x}, [](Rule& r) { r.to(0, mul(neg(r.error()), of(r.operand(0), elewise::sin))); }}},
    {"tan", {{value}, [](Rule& r) { r.to(0, mul(r.error(), square(r.result()) + 1.0)); }}},
    {"asin", {{x}, [](Rule& r) { r.to(0, mul(r.error(), rsqrt(1.0 - square(r.operand(0).array())))); }}},
    {"acos", {{x}, [](Rule& r) { r.to(0, mul(neg(r.error()), rsqrt(1.0 - square(r.operand(0).array())))); }}},
    {"atan", {{x}, [](Rule& r) { r.to(0, div(r.error(), square(r.operand(0).array()) + 1.0)); }}},
    {"atan2", {{x | y, x | y}, [](Rule& r) {
       const auto over_squares = [&](const Term& a) {
         const Term squares = add(mul(r.operand(0), r.operand(0)), mul(r.operand(1), r.operand(1)));
         return mul(r.error(), div(a, squares));
       };
       r.to(0, [&] { return over_squares(r.operand(1)); });
       r.to(1, [&] { return over_squares(neg(r.operand(0))); });
     }}},
    {"sinh", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), elewise::cosh))); }}},
    {"cosh", {{x}, [](Rule& r) { r.to(0, mul(r.error(), of(r.operand(0), elewise::sinh))); }}},
    {"remainder", {{{}, x | y}, [](Rule& r) {
       r.to(0, r.error());
       r.to(1, [&] { return mul(neg(r.error()), floor_divide(r.operand(0).operand(), r.operand(1).operand())); });
     }}},
    {"fmod", {{{}, x | y}, [](Rule& r) {
       r.to(0, r.error());
       r.to(1, [&] { return mul(neg(r.error()), trunc(r.operand(0).operand() / r.operand(1).operand())); });
     }}},
};

// In the order of the codes. An operation without a line, or a line without an operation, does not compile.
consteval std::array<Gradient, kMaxElementwise> by_code() {
  std::array<Gradient, kMaxElementwise> all{};
  int found = 0;
  for (int code = 0; code < kElementwiseCount; ++code)
    for (const Line& line : lines)
      if (line.name == elementwise_ops::All::infos[code].name) {
        all[static_cast<std::size_t>(code)] = line.gradient;
        ++found;
      }
  if (found != kElementwiseCount || found != static_cast<int>(std::size(lines)))
    throw "every elementwise operation has one line in the table of gradients";
  return all;
}

}  // namespace

constinit const std::array<Gradient, kMaxElementwise> elementwise_gradients = by_code();

}  // namespace owl
