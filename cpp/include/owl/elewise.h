// Elementwise functions. Axes of length 1 broadcast, aligned at the first axis. Operands of two or three are arrays or
// numbers, at least one an array.
#pragma once

#include "owl/narray.h"

// The list of functions, X(name, its struct in ops/elementwise.h): an entry here registers an operation and names it in
// C++ and in Python.
#define OWL_ELEWISE_UNARY(X)                                                                                   \
  X(exp, Exp) X(expm1, Expm1) X(ln, Ln) X(log1p, Log1p) X(sqrt, Sqrt) X(square, Square) X(abs, Abs)            \
  X(sign, Sign) X(sin, Sin) X(cos, Cos) X(floor, Floor) X(ceil, Ceil) X(erf, Erf) X(isnan, IsNan)              \
  X(isinf, IsInf) X(isfinite, IsFinite) X(round, Round) X(trunc, Trunc) X(exp2, Exp2) X(log2, Log2)            \
  X(log10, Log10) X(rsqrt, Rsqrt) X(tan, Tan) X(asin, Asin) X(acos, Acos) X(atan, Atan) X(sinh, Sinh)          \
  X(cosh, Cosh) X(sigm, Sigm) X(relu, Relu) X(tanh, Tanh) X(gelu, Gelu) X(softplus, Softplus) X(silu, Silu)    \
  X(hard_sigmoid, HardSigmoid) X(hard_swish, HardSwish) X(mish, Mish)
// X(name, struct, name of the second operand, its default value).
#define OWL_ELEWISE_PARAMETRIC(X) X(leaky_relu, LeakyRelu, slope, 0.01) X(elu, Elu, alpha, 1.0)
#define OWL_ELEWISE_BINARY(X)                                                                                  \
  X(mult, Mult) X(maximum, Maximum) X(minimum, Minimum) X(fmod, Fmod) X(atan2, Atan2) /* (y, x) */             \
  X(relu_back, ReluBack) X(sigm_back, SigmBack) X(tanh_back, TanhBack) /* (err, y) */
#define OWL_ELEWISE_TERNARY(X) X(clip, Clip) /* (x, low, high) */ X(where, Where) /* (condition, x, y) */

namespace owl::elewise {

#define OWL_DEFINE(NAME, STRUCT) \
  inline NArray NAME(const NArray& x) { const Operand o[] = {x}; return elementwise(#NAME, o); }
OWL_ELEWISE_UNARY(OWL_DEFINE)
#undef OWL_DEFINE

#define OWL_DEFINE(NAME, STRUCT) \
  inline NArray NAME(const Operand& x, const Operand& y) { const Operand o[] = {x, y}; return elementwise(#NAME, o); }
OWL_ELEWISE_BINARY(OWL_DEFINE)
#undef OWL_DEFINE

#define OWL_DEFINE(NAME, STRUCT, PARAMETER, VALUE)                            \
  inline NArray NAME(const Operand& x, const Operand& PARAMETER = VALUE) {    \
    const Operand o[] = {x, PARAMETER};                                       \
    return elementwise(#NAME, o);                                             \
  }
OWL_ELEWISE_PARAMETRIC(OWL_DEFINE)
#undef OWL_DEFINE

#define OWL_DEFINE(NAME, STRUCT)                                              \
  inline NArray NAME(const Operand& x, const Operand& y, const Operand& z) {  \
    const Operand o[] = {x, y, z};                                            \
    return elementwise(#NAME, o);                                             \
  }
OWL_ELEWISE_TERNARY(OWL_DEFINE)
#undef OWL_DEFINE

// Without the error: the factor by which it is multiplied.
inline NArray sigm_back(const NArray& y) { const Operand o[] = {y}; return elementwise("sigm_back", o); }
inline NArray tanh_back(const NArray& y) { const Operand o[] = {y}; return elementwise("tanh_back", o); }

// The approximation by tanh: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
inline NArray gelu(const NArray& x, bool approximate) {
  const Operand o[] = {x};
  return elementwise(approximate ? "gelu_tanh" : "gelu", o);
}

// The names of NumPy and PyTorch.
inline NArray log(const NArray& x) { return ln(x); }
inline NArray sigmoid(const NArray& x) { return sigm(x); }
inline NArray multiply(const Operand& x, const Operand& y) { return mult(x, y); }

}  // namespace owl::elewise

namespace owl {  // owl::exp is elewise::exp, and so on

#define OWL_DEFINE(NAME, ...) using elewise::NAME;
OWL_ELEWISE_UNARY(OWL_DEFINE)
OWL_ELEWISE_BINARY(OWL_DEFINE)
OWL_ELEWISE_PARAMETRIC(OWL_DEFINE)
OWL_ELEWISE_TERNARY(OWL_DEFINE)
#undef OWL_DEFINE
using elewise::log, elewise::sigmoid, elewise::multiply;

}  // namespace owl
