// The CPU kernels of the matrix product and of the neural-network operations (the records in ops/ define these). Each
// adds stages to the launch; chunks are cut by size alone.
#pragma once

#include "backend/cpu/strip_kernel.h"
#include "device/launch.h"
#include "plan/traits.h"

namespace owl::cpu {

void matmul(const KernelArgs& args, Launch& launch);
bool matmul_accepts(const Shape& shape, const Strides& strides, int input);

void conv(const KernelArgs& args, Launch& launch);
void conv_back_data(const KernelArgs& args, Launch& launch);
void conv_back_weight(const KernelArgs& args, Launch& launch);
void conv_back_bias(const KernelArgs& args, Launch& launch);

// See KernelTraits::channels_last.
unsigned conv_channels_last(std::span<const Shape> in, const Shape& out, const Params* params);
unsigned conv_back_data_channels_last(std::span<const Shape> in, const Shape& out, const Params* params);
unsigned conv_back_weight_channels_last(std::span<const Shape> in, const Shape& out, const Params* params);
unsigned conv_back_bias_channels_last(std::span<const Shape> in, const Shape& out, const Params* params);
unsigned pool_channels_last(std::span<const Shape> in, const Shape& out, const Params* params);
unsigned pool_back_channels_last(std::span<const Shape> in, const Shape& out, const Params* params);

// See KernelTraits::strips.
StripTraits conv_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);
StripTraits conv_back_data_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);
StripTraits conv_back_weight_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);
StripTraits conv_back_bias_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);
StripTraits pool_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);
StripTraits pool_back_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);

StripKernel conv_in_strips(const KernelArgs& whole, Launch& launch);
StripKernel conv_back_data_in_strips(const KernelArgs& whole, Launch& launch);
StripKernel conv_back_weight_in_strips(const KernelArgs& whole, Launch& launch);
StripKernel conv_back_bias_in_strips(const KernelArgs& whole, Launch& launch);

StripTraits matmul_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);
StripKernel matmul_in_strips(const KernelArgs& whole, Launch& launch);
StripTraits softmax_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params);

void pool(const KernelArgs& args, Launch& launch);
void pool_back(const KernelArgs& args, Launch& launch);

bool softmax_reads_ranges(const Shape& x, const Params* params);
void softmax(const KernelArgs& args, Launch& launch);
void log_softmax(const KernelArgs& args, Launch& launch);
void softmax_back(const KernelArgs& args, Launch& launch);
void log_softmax_back(const KernelArgs& args, Launch& launch);

bool layer_norm_reads_ranges(const Shape& x, const Params* params);
void layer_norm(const KernelArgs& args, Launch& launch);
void layer_norm_back(const KernelArgs& args, Launch& launch);

void lrn(const KernelArgs& args, Launch& launch);
void lrn_back(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
