// Kernels without operands.
#pragma once

#include <cmath>

#include "ops/common.h"

namespace owl::cpu {

struct CreateParams : ResultParams {
  CreateParams(const Shape& shape, DType dtype, double a, double b) : ResultParams(shape, dtype), a(a), b(b) {}
  bool finite() const override { return std::isfinite(a) && std::isfinite(b); }
  double a, b;  // full: value; arange: start, step; rand: low, high; randn: mu, sigma; randb: probability
  std::uint64_t seed = 0, call = 0;
};

void full(const KernelArgs& args, Launch& launch);
void arange(const KernelArgs& args, Launch& launch);
// Element i of a random array depends on the seed, the call and i alone (Philox 4x32-10, counter i / 4).
void rand(const KernelArgs& args, Launch& launch);
void randn(const KernelArgs& args, Launch& launch);
void randb(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
