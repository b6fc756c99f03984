// Which kernel computes which operation on a GPU.
#pragma once

#include "backend/cuda/emit.h"
#include "graph/op.h"
#include "plan/traits.h"

namespace owl::cuda {

// The kernel of an operation: with `loads`, programs may compute its operand 0, with `stores` they may work on its
// result, element by element in its own launches.
struct Kernel {
  void (*emit)(const Args& args, Emit& emit);
  bool loads = false, loads_once = false, stores = false;
  bool finishes = false;  // ends with Emit::finish, which runs the program on the result too
};
const Kernel* find_kernel(const OpRecord& op);  // null where there is none
// What the kernel of an operation can do.
const KernelTraits& traits_of(const OpRecord& op);

void matmul(const Args&, Emit&);
void conv(const Args&, Emit&);
void conv_back_data(const Args&, Emit&);
void conv_back_weight(const Args&, Emit&);
void copy(const Args&, Emit&);
void add_views(const Args&, Emit&);

// The kernels that are launches of text. Results without elements never come here.
void sum(const Args&, Emit&);
void mean(const Args&, Emit&);
void max(const Args&, Emit&);
void min(const Args&, Emit&);
void argmax(const Args&, Emit&);
void argmin(const Args&, Emit&);
void count_zero(const Args&, Emit&);
void softmax(const Args&, Emit&);
void log_softmax(const Args&, Emit&);
void softmax_back(const Args&, Emit&);
void pool(const Args&, Emit&);
void pool_back(const Args&, Emit&);
void lrn(const Args&, Emit&);
void lrn_back(const Args&, Emit&);
void full(const Args&, Emit&);
void arange(const Args&, Emit&);
void rand(const Args&, Emit&);
void randn(const Args&, Emit&);
void randb(const Args&, Emit&);
void concat(const Args&, Emit&);
void conv_back_bias(const Args&, Emit&);  // the sum of err over every axis but the channels'
void int_matmul(const Args&, Emit&);      // of int32; operands may be transposed views (strides)

}  // namespace owl::cuda
