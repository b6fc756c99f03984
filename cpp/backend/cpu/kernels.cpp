#include "backend/cpu/kernels.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "backend/cpu/concat.h"
#include "backend/cpu/create.h"
#include "backend/cpu/nn.h"
#include "backend/cpu/reduce.h"
#include "backend/cpu/take.h"
#include "device/device.h"
#include "ops/records.h"
#include "ops/user.h"
#include "plan/task.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kCopyChunk = 1 << 20;  // bytes

// Copies from another device.
void device_copy(const KernelArgs& args, Launch& launch) {
  const auto bytes = static_cast<std::int64_t>(args.out.nbytes());
  const TaskOperand& source = launch.task->inputs[0];
  if (!source.storage->device->backend->host_readable())
    return launch.stage(1, [&source, to = args.out.data, bytes](std::int64_t) {
      source.storage->device->backend->download(to, *source.storage, source.byte_offset(),
                                                static_cast<std::size_t>(bytes));
    });
  launch.stage((bytes + kCopyChunk - 1) / kCopyChunk,
               [bytes, from = args.in[0].as<std::byte>(), to = args.out.as<std::byte>()](std::int64_t chunk) {
                 const auto begin = chunk * kCopyChunk;
                 std::memcpy(to + begin, from + begin, static_cast<std::size_t>(std::min(kCopyChunk, bytes - begin)));
               });
}

bool any_strides(const Shape&, const Strides&, int) { return true; }

Kernel plain(KernelFn run) { return {{}, run}; }
Kernel finishing(KernelFn run) { return {{.finishes_ranges = true}, run}; }
Kernel reduction(KernelFn run) { return {{.reads_ranges = reduces_ranges, .finishes_ranges = true}, run}; }
Kernel arg_reduction(KernelFn run) { return {{.reads_ranges = arg_reduces_ranges, .finishes_ranges = true}, run}; }
Kernel imaging(KernelFn run, decltype(KernelTraits::channels_last) channels_last, decltype(KernelTraits::strips) strips,
               StripKernelFn in_strips) {
  return {{.finishes_ranges = true, .channels_last = channels_last, .strips = strips}, run, in_strips};
}

using Table = std::unordered_map<const OpRecord*, Kernel>;

const Table& table() {
  static const auto& all = *new Table{
      {&op_full, plain(full)},
      {&op_arange, plain(arange)},
      {&op_rand, plain(rand)},
      {&op_randn, plain(randn)},
      {&op_randb, plain(randb)},
      {&op_copy, {{.accepts_strided = any_strides}, copy}},
      {&op_concat, plain(concat)},
      {&op_place_views, plain(add_views)},
      {&op_add_views, {{.in_place = 0}, add_views}},
      {&op_sum, reduction(sum)},
      {&op_mean, reduction(mean)},
      {&op_moments, {{.reads_ranges = reduces_ranges}, moments}},
      {&op_prod, reduction(prod)},
      {&op_max, reduction(max)},
      {&op_min, reduction(min)},
      {&op_argmax, arg_reduction(argmax)},
      {&op_argmin, arg_reduction(argmin)},
      {&op_count_zero, reduction(count_zero)},
      {&op_cumsum, {{.in_place = 0, .finishes_ranges = true}, cumsum}},
      {&op_check_indices, plain(check_indices)},
      {&op_take, finishing(take)},
      {&op_put_add, {{.in_place = 0, .finishes_ranges = true}, put_add}},
      {&op_sort, plain(sort)},
      {&op_matmul,
       {{.accepts_strided = matmul_accepts, .finishes_ranges = true, .strips = matmul_strips}, matmul, matmul_in_strips}},
      {&op_softmax,
       {{.reads_ranges = softmax_reads_ranges, .in_place = 0, .finishes_ranges = true, .strips = softmax_strips},
        softmax, in_strips<softmax>}},
      {&op_log_softmax,
       {{.reads_ranges = softmax_reads_ranges, .in_place = 0, .finishes_ranges = true, .strips = softmax_strips},
        log_softmax, in_strips<log_softmax>}},
      {&op_softmax_back,
       {{.in_place = 0, .finishes_ranges = true, .strips = softmax_strips}, softmax_back, in_strips<softmax_back>}},
      {&op_log_softmax_back,
       {{.reads_ranges = softmax_reads_ranges, .in_place = 1, .finishes_ranges = true, .strips = softmax_strips},
        log_softmax_back, in_strips<log_softmax_back>}},
      {&op_layer_norm, {{.reads_ranges = layer_norm_reads_ranges, .in_place = 0, .finishes_ranges = true}, layer_norm}},
      {&op_layer_norm_back, {{.reads_ranges = layer_norm_reads_ranges}, layer_norm_back}},
      {&op_conv, imaging(conv, conv_channels_last, conv_strips, conv_in_strips)},
      {&op_conv_back_data,
       imaging(conv_back_data, conv_back_data_channels_last, conv_back_data_strips, conv_back_data_in_strips)},
      {&op_conv_back_weight,
       imaging(conv_back_weight, conv_back_weight_channels_last, conv_back_weight_strips, conv_back_weight_in_strips)},
      {&op_conv_back_bias,
       imaging(conv_back_bias, conv_back_bias_channels_last, conv_back_bias_strips, conv_back_bias_in_strips)},
      {&op_pool, imaging(pool, pool_channels_last, pool_strips, in_strips<pool>)},
      {&op_pool_back, imaging(pool_back, pool_back_channels_last, pool_back_strips, in_strips<pool_back>)},
      {&op_lrn, finishing(lrn)},
      {&op_lrn_back, finishing(lrn_back)},
      {&op_device_copy, plain(device_copy)},
  };
  return all;
}

const Kernel user_kernel = plain(run_user);

}  // namespace

const Kernel& kernel_of(const OpRecord& op) {
  if (op.runs_user_code) return user_kernel;
  const auto found = table().find(&op);
  if (found == table().end()) throw Error("internal error: the CPU has no kernel for " + std::string(op.name));
  return found->second;
}

}  // namespace owl::cpu
