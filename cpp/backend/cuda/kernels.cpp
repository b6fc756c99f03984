// The table from operation to kernel, and the few kernels that need no separate file.
#include <unordered_map>

#include "backend/cuda/kernels.h"
#include "ops/records.h"

namespace owl::cuda {

// Makes a strided view dense: a program without operations.
void copy(const Args& args, Emit& emit) {
  const ArrayRef& in = args.in[0];
  Program program;
  program.shape = in.shape;
  program.inputs.push_back({in.dtype, in.strides, false});
  program.outputs.push_back({0, in.dtype});
  emit.program(program, {in.data}, {args.out.data});
}

namespace {

bool has_elements(const Shape& operand, const Params*) { return operand.size() > 0; }
bool any_strides(const Shape&, const Strides&, int) { return true; }

// What cuBLASLt and owl's own product take: one of the leading axes is contiguous.
bool is_matrix(const Shape& shape, const Strides& strides, int) {
  if (shape.ndim() < 2) return false;
  for (int i = 2; i < shape.ndim(); ++i)
    if (shape[i] > 1 && strides[static_cast<std::size_t>(i)] < 0) return false;
  // The stride of an axis of length 1 is never used.
  const bool one_row = shape[0] <= 1, one_column = shape[1] <= 1;
  if (one_row && one_column) return true;
  if (one_row) return strides[1] >= 1;
  if (one_column) return strides[0] >= 1;
  return (strides[0] == 1 && strides[1] >= shape[0]) || (strides[1] == 1 && strides[0] >= shape[1]);
}

using EmitFn = void (*)(const Args&, Emit&);

// A program behind a kernel that does not store through it is a launch of its own, in the same task: the kernel writes
// where a result of that program will be.
Kernel library(EmitFn emit) { return {{.finishes_ranges = true}, emit}; }
Kernel storing(EmitFn emit) { return {{.finishes_ranges = true}, emit, false, false, true}; }
Kernel reduction(EmitFn emit) {
  return {{.reads_ranges = has_elements, .finishes_ranges = true}, emit, true, true, true};
}
// Reads its operand several times.
Kernel distribution(EmitFn emit) {
  return {{.reads_ranges = has_elements, .in_place = 0, .finishes_ranges = true}, emit, true, false, true};
}

using Table = std::unordered_map<const OpRecord*, Kernel>;

const Table& table() {
  static const auto& all = *new Table{
      {&op_full, storing(full)},
      {&op_arange, storing(arange)},
      {&op_rand, storing(rand)},
      {&op_randn, storing(randn)},
      {&op_randb, storing(randb)},
      {&op_copy, {{.accepts_strided = any_strides}, copy}},
      {&op_concat, {{}, concat}},
      {&op_place_views, {{}, add_views}},
      {&op_add_views, {{.in_place = 0}, add_views}},
      {&op_sum, reduction(sum)},
      {&op_mean, reduction(mean)},
      {&op_moments, {{.reads_ranges = has_elements}, moments, true}},
      {&op_prod, reduction(prod)},
      {&op_max, reduction(max)},
      {&op_min, reduction(min)},
      {&op_argmax, reduction(argmax)},
      {&op_argmin, reduction(argmin)},
      {&op_count_zero, reduction(count_zero)},
      {&op_cumsum, distribution(cumsum)},
      {&op_check_indices, {{}, check_indices}},
      {&op_take, storing(take)},
      {&op_put_add, {{.in_place = 0}, put_add}},
      {&op_sort, {{}, sort}},
      {&op_matmul, {{.accepts_strided = is_matrix, .finishes_ranges = true}, matmul}},
      {&op_softmax, distribution(softmax)},
      {&op_log_softmax, distribution(log_softmax)},
      {&op_softmax_back, {{.in_place = 0, .finishes_ranges = true}, softmax_back, false, false, true}},
      {&op_log_softmax_back,
       {{.reads_ranges = has_elements, .in_place = 1, .finishes_ranges = true}, log_softmax_back, true, false, true}},
      {&op_layer_norm, distribution(layer_norm)},
      {&op_layer_norm_back, {{}, layer_norm_back}},
      {&op_conv, {{.finishes_ranges = true}, conv, false, false, false, true}},
      {&op_conv_back_data, library(conv_back_data)},
      {&op_conv_back_weight, library(conv_back_weight)},
      {&op_conv_back_bias, storing(conv_back_bias)},
      {&op_pool, storing(pool)},
      {&op_pool_back, storing(pool_back)},
      {&op_lrn, storing(lrn)},
      {&op_lrn_back, storing(lrn_back)},
  };
  return all;
}

}  // namespace

const Kernel* find_kernel(const OpRecord& op) {
  const auto found = table().find(&op);
  return found == table().end() ? nullptr : &found->second;
}

const KernelTraits& traits_of(const OpRecord& op) {
  static const KernelTraits none;  // of what is refused when it runs, and of copies, which are no kernels
  const Kernel* const kernel = find_kernel(op);
  return kernel ? *kernel : none;
}

}  // namespace owl::cuda
