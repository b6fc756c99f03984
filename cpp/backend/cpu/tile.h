// The tile functions, which compute the instructions of fused programs.
#pragma once

#include <cstdint>

#include "owl/dtype.h"

namespace owl::cpu {

// Computes `n` elements of one scalar expression; operands and result are dense, of the instruction's types.
// `dst` may be the same pointer as an operand.
using TileFn = void (*)(void* dst, const void* a, const void* b, const void* c, std::int64_t n);

// The tile function of an elementwise operation for operands of a type, compiled for this processor's best instruction
// set; null if the operation does not take that type.
TileFn tile_function(std::uint16_t code, DType dtype);
// The conversion of n elements between two types (float to int truncates toward zero, saturating, NaN gives 0;
// anything to bool is `!= 0`).
TileFn cast_function(DType from, DType to);

}  // namespace owl::cpu
