// Which kernel computes which operation, and the few kernels that need no file of their own.
#include <string_view>
#include <unordered_map>

#include "backend/cuda/backend.h"

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

const Kernel* find_kernel(const char* op) {
  static const auto& by_name = *new std::unordered_map<std::string_view, Kernel>{[] {
    constexpr bool loads = true, loads_once = true, stores = true, finishes = true;
    const Kernel all[] = {
        {"full", full, false, false, stores},
        {"arange", arange, false, false, stores},
        {"rand", rand, false, false, stores},
        {"randn", randn, false, false, stores},
        {"randb", randb, false, false, stores},
        {"copy", copy},
        {"concat", concat},
        {"sum", sum, loads, loads_once, stores},
        {"mean", mean, loads, loads_once, stores},
        {"max", max, loads, loads_once, stores},
        {"min", min, loads, loads_once, stores},
        {"argmax", argmax, loads, loads_once, stores},
        {"argmin", argmin, loads, loads_once, stores},
        {"count_zero", count_zero, loads, loads_once, stores},
        {"matmul", matmul},
        {"softmax", softmax, loads, false, stores},
        {"log_softmax", log_softmax, loads, false, stores},
        {"softmax_back", softmax_back, false, false, stores},
        {"conv", conv, false, false, false, finishes},
        {"conv_back_data", conv_back_data},
        {"conv_back_weight", conv_back_weight},
        {"conv_back_bias", conv_back_bias, false, false, stores},
        {"pool", pool, false, false, stores},
        {"pool_back", pool_back, false, false, stores},
        {"lrn", lrn, false, false, stores},
        {"lrn_back", lrn_back, false, false, stores},
    };
    std::unordered_map<std::string_view, Kernel> map;
    for (const auto& kernel : all) map.emplace(kernel.op, kernel);
    return map;
  }()};
  const auto found = by_name.find(op);
  return found == by_name.end() ? nullptr : &found->second;
}

}  // namespace owl::cuda
