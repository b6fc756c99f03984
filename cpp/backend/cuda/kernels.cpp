// Which kernel computes which operation, and the few kernels that need no file of their own.
#include <unordered_map>

#include "backend/cpu/kernels.h"
#include "backend/cuda/kernels.h"
#include "ops/records.h"

namespace owl::cuda {

// A strided view made dense: a program without operations.
void copy(const Args& args, Emit& emit) {
  const ArrayRef& in = args.in[0];
  Program program;
  program.shape = in.shape;
  program.inputs.push_back({in.dtype, in.strides, false});
  program.outputs.push_back({0, in.dtype});
  emit.program(program, {in.data}, {args.out.data});
}

const Kernel* find_kernel(const OpRecord& op) {
  static const auto& table = *new std::unordered_map<const OpRecord*, Kernel>{[] {
    constexpr bool loads = true, loads_once = true, stores = true, finishes = true;
    return std::unordered_map<const OpRecord*, Kernel>{
        {&op_full, {full, false, false, stores}},
        {&op_arange, {arange, false, false, stores}},
        {&op_rand, {rand, false, false, stores}},
        {&op_randn, {randn, false, false, stores}},
        {&op_randb, {randb, false, false, stores}},
        {&op_copy, {copy}},
        {&op_concat, {concat}},
        {&op_place_views, {add_views}},
        {&op_add_views, {add_views}},
        {&op_sum, {sum, loads, loads_once, stores}},
        {&op_mean, {mean, loads, loads_once, stores}},
        {&op_max, {max, loads, loads_once, stores}},
        {&op_min, {min, loads, loads_once, stores}},
        {&op_argmax, {argmax, loads, loads_once, stores}},
        {&op_argmin, {argmin, loads, loads_once, stores}},
        {&op_count_zero, {count_zero, loads, loads_once, stores}},
        {&op_matmul, {matmul}},
        {&op_softmax, {softmax, loads, false, stores}},
        {&op_log_softmax, {log_softmax, loads, false, stores}},
        {&op_softmax_back, {softmax_back, false, false, stores}},
        {&op_conv, {conv, false, false, false, finishes}},
        {&op_conv_back_data, {conv_back_data}},
        {&op_conv_back_weight, {conv_back_weight}},
        {&op_conv_back_bias, {conv_back_bias, false, false, stores}},
        {&op_pool, {pool, false, false, stores}},
        {&op_pool_back, {pool_back, false, false, stores}},
        {&op_lrn, {lrn, false, false, stores}},
        {&op_lrn_back, {lrn_back, false, false, stores}},
    };
  }()};
  const auto found = table.find(&op);
  return found == table.end() ? nullptr : &found->second;
}

// Which operations share a task is decided as for the CPU: whether a GPU would rather have it otherwise is not measured.
const KernelTraits& traits_of(const OpRecord& op) {
  static const auto& table = *new std::unordered_map<const OpRecord*, KernelTraits>{[] {
    std::unordered_map<const OpRecord*, KernelTraits> all;
    for (const OpRecord* each : all_ops()) {
      if (!find_kernel(*each)) continue;
      KernelTraits traits = cpu::kernel_of(*each);
      traits.channels_last = nullptr;
      all.emplace(each, traits);
    }
    return all;
  }()};
  static const KernelTraits none;  // of what is refused when it runs, and of copies, which are no kernels
  const auto found = table.find(&op);
  return found == table.end() ? none : found->second;
}

}  // namespace owl::cuda
