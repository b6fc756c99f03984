// Every operation there is.
#include <unordered_map>

#include "graph/op.h"
#include "ops/records.h"

namespace owl {

extern const OpRecord op_full, op_arange, op_rand, op_randn, op_randb;                           // create.cpp
extern const OpRecord op_copy, op_concat;                                                        // shape.cpp
extern const OpRecord op_sum, op_mean, op_max, op_min, op_argmax, op_argmin, op_count_zero;      // reduce.cpp
extern const OpRecord op_matmul;                                                                 // matmul.cpp
extern const OpRecord op_softmax, op_log_softmax, op_softmax_back;                               // softmax.cpp
extern const OpRecord op_conv, op_conv_back_data, op_conv_back_weight, op_conv_back_bias;        // conv.cpp
extern const OpRecord op_pool, op_pool_back;                                                     // pool.cpp
extern const OpRecord op_lrn, op_lrn_back;                                                       // lrn.cpp
extern const OpRecord op_all_reduce;                                                             // all_reduce.cpp
extern const OpRecord op_device_copy;                                                            // graph/

const std::vector<const OpRecord*>& all_ops() {
  static const auto list = [] {
    std::vector<const OpRecord*> ops;
    for (const auto& op : elementwise_records()) ops.push_back(&op);
    for (const auto* op :
         {&op_full, &op_arange, &op_rand, &op_randn, &op_randb, &op_copy, &op_concat, &op_sum, &op_mean, &op_max,
          &op_min, &op_argmax, &op_argmin, &op_count_zero, &op_matmul, &op_softmax, &op_log_softmax, &op_softmax_back,
          &op_conv, &op_conv_back_data, &op_conv_back_weight, &op_conv_back_bias, &op_pool, &op_pool_back, &op_lrn,
          &op_lrn_back, &op_all_reduce, &op_device_copy})
      ops.push_back(op);
    return ops;
  }();
  return list;
}

const OpRecord* find_op(std::string_view name) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, const OpRecord*> map;
    for (const auto* op : all_ops()) map.emplace(op->name, op);
    return map;
  }();
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : it->second;
}

}  // namespace owl
