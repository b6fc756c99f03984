// Elementwise functions. Axes of length 1 broadcast, aligned at the first axis. Operands of two or three are arrays or
// numbers, at least one an array.
#pragma once

#include "owl/narray.h"

// The list of functions, X(name, its struct in ops/elementwise.h): a line here registers an operation and gives it its
// name in C++ and in Python.
#define OWL_ELEWISE_UNARY(X)                                                                                   \
  X(exp, Exp) X(expm1, Expm1) X(ln, Ln) X(log1p, Log1p) X(sqrt, Sqrt) X(square, Square) X(abs, Abs)            \
  X(sign, Sign) X(sin, Sin) X(cos, Cos) X(floor, Floor) X(ceil, Ceil) X(erf, Erf) X(isnan, IsNan)              \
  X(sigm, Sigm) X(relu, Relu) X(tanh, Tanh) X(gelu, Gelu) X(leaky_relu, LeakyRelu) X(elu, Elu)                 \
  X(softplus, Softplus)
#define OWL_ELEWISE_BINARY(X)                                                                                  \
  X(mult, Mult) X(maximum, Maximum) X(minimum, Minimum)                                                        \
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

#define OWL_DEFINE(NAME, STRUCT)                                              \
  inline NArray NAME(const Operand& x, const Operand& y, const Operand& z) {  \
    const Operand o[] = {x, y, z};                                            \
    return elementwise(#NAME, o);                                             \
  }
OWL_ELEWISE_TERNARY(OWL_DEFINE)
#undef OWL_DEFINE

// Without the error: the factor that multiplies it.
inline NArray sigm_back(const NArray& y) { const Operand o[] = {y}; return elementwise("sigm_back", o); }
inline NArray tanh_back(const NArray& y) { const Operand o[] = {y}; return elementwise("tanh_back", o); }

}  // namespace owl::elewise
