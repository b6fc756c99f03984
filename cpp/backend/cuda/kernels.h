// A GPU's table from operation to kernel.
#pragma once

#include "backend/cuda/emit.h"
#include "graph/op.h"
#include "plan/traits.h"

namespace owl::cuda {

// The kernel of an operation: with `loads`, a program may compute its operand 0, with `stores` one may run on its
// result, element by element in its own launches.
struct Kernel : KernelTraits {
  void (*emit)(const Args& args, Emit& emit) = nullptr;
  bool loads = false, loads_once = false, stores = false;
  bool finishes = false;  // ends with Emit::finish, which also runs the program after it
};
const Kernel* find_kernel(const OpRecord& op);  // null if there is none
// The capabilities of an operation's kernel.
const KernelTraits& traits_of(const OpRecord& op);

void matmul(const Args&, Emit&);
void conv(const Args&, Emit&);
void conv_back_data(const Args&, Emit&);
void conv_back_weight(const Args&, Emit&);
void copy(const Args&, Emit&);
void add_views(const Args&, Emit&);

// The kernels that launch texts. Never called for results without elements.
void sum(const Args&, Emit&);
void mean(const Args&, Emit&);
void moments(const Args&, Emit&);
void prod(const Args&, Emit&);
void max(const Args&, Emit&);
void min(const Args&, Emit&);
void argmax(const Args&, Emit&);
void argmin(const Args&, Emit&);
void count_zero(const Args&, Emit&);
void cumsum(const Args&, Emit&);
void softmax(const Args&, Emit&);
void log_softmax(const Args&, Emit&);
void softmax_back(const Args&, Emit&);
void log_softmax_back(const Args&, Emit&);
void pool(const Args&, Emit&);
void pool_back(const Args&, Emit&);
void layer_norm(const Args&, Emit&);
void layer_norm_back(const Args&, Emit&);
void lrn(const Args&, Emit&);
void lrn_back(const Args&, Emit&);
void full(const Args&, Emit&);
void arange(const Args&, Emit&);
void rand(const Args&, Emit&);
void randn(const Args&, Emit&);
void randb(const Args&, Emit&);
void concat(const Args&, Emit&);
void check_indices(const Args&, Emit&);
void take(const Args&, Emit&);
void put_add(const Args&, Emit&);
void sort(const Args&, Emit&);
void conv_back_bias(const Args&, Emit&);  // the sum of err over every axis but the channels'
void int_matmul(const Args&, Emit&);      // int32; operands may be transposed views (strides)

}  // namespace owl::cuda
