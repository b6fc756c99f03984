// The list of all operations that are no elementwise expressions (those are listed in ops/elementwise.h): a line each,
// and the name of its record is op_NAME.
#pragma once

#include <array>
#include <span>

#include "base/module_api.h"
#include "graph/gradient.h"
#include "graph/op.h"

#define OWL_KERNEL_OPERATIONS(X)                                                              \
  X(full) X(arange) X(rand) X(randn) X(randb)                        /* create.cpp */         \
  X(copy) X(concat)                          /* graph/copy.cpp, shape.cpp */                  \
  X(place_views) X(add_views)                /* add_views.cpp */                              \
  X(sum) X(mean) X(moments) X(prod) X(max) X(min)                    /* reduce.cpp */         \
  X(argmax) X(argmin) X(count_zero)                                                            \
  X(cumsum)                                                          /* scan.cpp */           \
  X(check_indices) X(take) X(put_add)                                /* take.cpp */           \
  X(sort)                                                            /* sort.cpp */           \
  X(matmul)                                                          /* matmul.cpp */         \
  X(softmax) X(log_softmax) X(softmax_back) X(log_softmax_back)      /* softmax.cpp */        \
  X(layer_norm) X(layer_norm_back)                                   /* norm.cpp */           \
  X(conv) X(conv_back_data) X(conv_back_weight) X(conv_back_bias)    /* conv.cpp */           \
  X(pool) X(pool_back)                                               /* pool.cpp */           \
  X(lrn) X(lrn_back)                                                 /* lrn.cpp */            \
  X(all_reduce)                                                      /* all_reduce.cpp */     \
  X(device_copy)                                                     /* graph/copy.cpp */

namespace owl {

#define OWL_DECLARE(NAME) OWL_MODULE_API extern const OpRecord op_##NAME;
OWL_KERNEL_OPERATIONS(OWL_DECLARE)
#undef OWL_DECLARE

// The elementwise expressions, in the order of their codes.
std::span<const OpRecord> elementwise_records();
const OpRecord* find_elementwise(std::string_view name);  // null where there is none

// Their gradients, by code (elementwise_gradients.cpp).
inline constexpr std::size_t kMaxElementwise = 256;
extern const std::array<Gradient, kMaxElementwise> elementwise_gradients;

}  // namespace owl
